"""A server with the parts of ComfyUI's API that the runner uses, which "runs" every graph at once: main.py of a folder.

A graph with a node of class Crash ends the server. Each start appends a line to starts.txt beside this file.
"""

import argparse
import json
import os
from pathlib import Path

from aiohttp import web

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
options, _ = parser.parse_known_args()
sockets = {}
routes = web.RouteTableDef()


@routes.get("/system_stats")
async def stats(request):
    return web.json_response({"system": {}})


@routes.get("/object_info/{name}")
async def info(request):
    return web.json_response({request.match_info["name"]: {}})


@routes.get("/ws")
async def connect(request):
    sockets[request.query["clientId"]] = socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for _ in socket:
        pass
    return socket


@routes.post("/prompt")
async def queue(request):
    asked = await request.json()
    if any(node["class_type"] == "Crash" for node in asked["prompt"].values()):
        os._exit(3)
    event = {"type": "executing", "data": {"node": None, "prompt_id": "1"}}
    await sockets[asked["client_id"]].send_str(json.dumps(event))
    return web.json_response({"prompt_id": "1"})


@routes.get("/history/{id}")
async def history(request):
    return web.json_response({request.match_info["id"]: {"outputs": {}}})


if __name__ == "__main__":
    with (Path(__file__).parent / "starts.txt").open("a") as file:
        file.write("started\n")
    app = web.Application()
    app.add_routes(routes)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None)
