"""The client of a ComfyUI server: queues a graph, follows it and fetches the results."""

import asyncio
import json
import time
import uuid
from contextlib import suppress

import aiohttp

from .missing import missing_nodes
from .server import ServerFailed, ServerLost
from .unreachable import FAILURES, NotComfyUI, unreachable

MAX_DETAILS = 300  # characters of one error: ComfyUI may list every model file
START_SECONDS = 600  # the imports of a first start take minutes on a slow disk or a busy machine


class ComfyClient:
    """Context manager: an HTTP session and a websocket to a server of server.py.

    on_event: called with the text of every event of the running prompt.
    patience: seconds to wait for the server's first answer.
    is_starting: whether the server may not listen yet; if not, the first failure to reach it is the last.
    """

    def __init__(self, server, on_event=lambda text: None, patience=START_SECONDS, is_starting=True):
        self.server = server
        self.on_event = on_event
        self.patience = patience
        self.is_starting = is_starting
        self.id = uuid.uuid4().hex
        self.prompt_id = None  # of the running prompt

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(f"http://{self.server.address}")
        try:
            self.system = await self._wait_until_ready()
            await self._require_pack()
            self.socket = await self.session.ws_connect("/ws", params={"clientId": self.id}, max_msg_size=0)
        except BaseException:
            await self.session.close()
            raise
        return self

    async def __aexit__(self, *_):
        await self.socket.close()
        await self.session.close()

    async def _wait_until_ready(self):
        """Wait until the server answers; returns its description of itself. Raises ServerLost if it does not."""
        deadline = time.monotonic() + self.patience
        while (left := deadline - time.monotonic()) > 0:
            if self.server.has_ended:
                raise ServerLost(f"ComfyUI exited during its start:\n{self.server.log_tail()}")
            try:
                return await self._description(left)
            except FAILURES as error:
                if not self.is_starting:
                    raise ServerLost(unreachable(self.server.address, error, self.patience)) from error
            await asyncio.sleep(0.2)
        raise ServerLost(
            f"no ComfyUI answered at {self.server.address} within {self.patience:g} s:\n{self.server.log_tail()}"
        )

    async def _description(self, seconds):
        """The server's description of itself. Raises one of FAILURES."""
        async with self.session.get("/system_stats", timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
            if answer.status != 200:
                raise NotComfyUI(f"it answered /system_stats with status {answer.status}")
            try:
                return json.loads(await answer.text())["system"]
            except (ValueError, KeyError, TypeError) as error:
                raise NotComfyUI("its answer to /system_stats is not that of a ComfyUI") from error

    async def _require_pack(self):
        """Raise ServerFailed, with the reason that ComfyUI logged, if it could not load our nodes."""
        async with self.session.get("/object_info/PreciseCacheTinyModel") as answer:
            if answer.status != 200 or not await answer.json():
                raise ServerFailed(f"this ComfyUI could not load PreciseCache:\n{self.server.import_error()}")

    async def run(self, graph, timed_node=None):
        """Queue a graph and wait for its end; returns its outputs by node id, and `timed_node`'s seconds or None."""
        async with self.session.post("/prompt", json={"prompt": graph, "client_id": self.id}) as answer:
            text = await answer.text()
            if answer.status != 200:
                refusal = f"ComfyUI refused the graph (status {answer.status}): {readable(text)}"
                raise ServerFailed(refusal + await self._missing(graph, text))
        self.prompt_id = json.loads(text)["prompt_id"]
        seconds = await self._follow(self.prompt_id, timed_node)
        async with self.session.get(f"/history/{self.prompt_id}") as answer:
            entry = (await answer.json()).get(self.prompt_id)
        if entry is None:
            raise ServerFailed("the results are lost: ComfyUI's history was cleared before they were read")
        outputs = entry["outputs"]
        self.prompt_id = None
        return outputs, seconds

    async def _missing(self, graph, refusal):
        """What `missing_nodes` says of a graph that was refused before any of its nodes was looked at."""
        with suppress(ValueError, AttributeError, *FAILURES):
            if not json.loads(refusal).get("node_errors"):
                async with self.session.get("/object_info") as answer:
                    return missing_nodes(graph, await answer.json())
        return ""

    async def stop(self):
        """Remove the prompt that `run` waits for from the queue, or interrupt it if it is running."""
        if self.prompt_id is None:
            return
        await self.session.post("/queue", json={"delete": [self.prompt_id]})
        async with self.session.get("/queue") as answer:
            running = {item[1] for item in (await answer.json())["queue_running"]}
        if self.prompt_id in running:
            await self.session.post("/interrupt", json={"prompt_id": self.prompt_id})

    async def _follow(self, prompt_id, timed_node):
        """Wait for the end of a prompt; returns for how many seconds `timed_node` executed, or None."""
        start = seconds = None
        async for message in self.socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = json.loads(message.data)
            kind, data = event["type"], event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            self.on_event(message.data)
            if kind in ("execution_error", "execution_interrupted"):
                raise ServerFailed(describe_error(kind, data))
            if kind != "executing":
                continue
            now = time.perf_counter()
            if data["node"] == timed_node:
                start = now
            elif start is not None and seconds is None:
                seconds = now - start
            if data["node"] is None:
                if seconds is None and timed_node is not None:
                    raise ServerFailed(f"ComfyUI never executed node {timed_node}")
                return seconds
        raise ServerLost(f"ComfyUI closed the connection before the graph ended:\n{self.server.log_tail()}")

    async def listen(self, is_waiting, seconds):
        """Pass on events that come after the end of a prompt, while `is_waiting()` and for so many seconds at most."""

        async def take():
            while is_waiting():
                message = await self.socket.receive()
                if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                    return
                if message.type == aiohttp.WSMsgType.TEXT:
                    self.on_event(message.data)

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(take(), seconds)

    async def file(self, entry):
        """The bytes of a file that a node saved; entry: the file's entry in the history."""
        async with self.session.get("/view", params=entry) as answer:
            answer.raise_for_status()
            return await answer.read()


def readable(text):
    """ComfyUI's refusal with a line for each error of each node; unchanged if its form is unknown."""
    try:
        answer = json.loads(text)
        error = answer["error"]
        parts = [error["message"], error.get("details"), (error.get("extra_info") or {}).get("class_type")]
        lines = [" ".join(f"{part}".strip() for part in parts if part)]
        for key, node in answer["node_errors"].items():
            lines += [
                f"{node['class_type']} ({key}): {error['message']}: {error['details'][:MAX_DETAILS]}"
                for error in node["errors"]
            ]
        return "\n".join(lines)
    except (ValueError, KeyError, TypeError, AttributeError):
        return text


def describe_error(kind, data):
    """A node's error as one text: what failed, where, and the traceback that ComfyUI sent."""
    head = f"{kind} in node {data.get('node_id')} ({data.get('node_type')})"
    if "exception_message" not in data:
        return head
    trace = "".join(data.get("traceback") or [])
    return f"{head}: {data.get('exception_type')}: {data['exception_message'].strip()}\n{trace}".rstrip()
