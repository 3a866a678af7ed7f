"""The parts of `run.py graph --watch`: which files are ready, prompt files, and the table."""

import os

import pytest

from tools.graph.folder import Folder
from tools.graph.outcome import Outcome, speedup_of, table
from tools.graph.overrides import OverrideError
from tools.graph.prompts import folder_name, prompt_input, read_prompts
from tools.graph.shipped import GRAPHS, load_graph


def names(folder):
    ready, is_incomplete = folder.look()
    return [path.name for path in ready], is_incomplete


def test_a_file_is_ready_once_it_is_complete(tmp_path):
    graphs, texts = Folder(tmp_path, ".json"), Folder(tmp_path, ".txt")
    (tmp_path / "b.JSON").write_text("{}")
    (tmp_path / "a.json").write_text('{"1": ')
    (tmp_path / "p.txt").write_text("a cat")
    (tmp_path / ".hidden.json").write_text("{}")
    (tmp_path / "folder.json").mkdir()
    assert names(graphs) == (["b.JSON"], True) and names(texts) == ([], True)
    (tmp_path / "p.txt").write_text("a cat\na dog")
    assert names(graphs) == (["a.json", "b.JSON"], False) and names(texts) == ([], True)
    assert names(texts) == (["p.txt"], False)


def test_a_file_is_ready_again_after_a_change_and_only_then(tmp_path):
    folder, path = Folder(tmp_path, ".json"), tmp_path / "a.json"
    path.write_text("{}")
    folder.look()
    folder.take(path)
    assert names(folder) == ([], False)
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    assert names(folder) == (["a.json"], False)
    folder.take(path)
    path.unlink()
    assert names(folder) == ([], False)


def test_nothing_runs_again_after_the_folder_was_away(tmp_path):
    folder, drive = Folder(tmp_path / "drive", ".json"), tmp_path / "drive"
    drive.mkdir()
    (drive / "a.json").write_text("{}")
    folder.look()
    folder.take(drive / "a.json")
    drive.rename(tmp_path / "away")
    assert names(folder) == ([], False)
    (tmp_path / "away").rename(drive)
    assert names(folder) == ([], False)


def test_prompts_are_lines_without_comments(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffa red fox\r\n\r\n# not this\n  海边的狐狸 \n".encode())
    assert read_prompts(path) == [(1, "a red fox"), (4, "海边的狐狸")]
    path.write_text("# none\n")
    with pytest.raises(OverrideError, match=r"p\.txt has no prompt"):
        read_prompts(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OverrideError, match="cannot read"):
        read_prompts(path)


def test_folders_are_named_by_line_and_words():
    assert folder_name(3, "A red fox, in snow/ice!") == "003_a_red_fox_in_snow_ice"
    assert folder_name(12, "海边的狐狸") == "012_海边的狐狸" and folder_name(7, "...") == "007"
    assert len(folder_name(1, "word " * 50)) <= 44


@pytest.mark.parametrize(
    "name, title, widget",
    [
        ("wan2.1_t2v_precisecache", "Positive prompt", "text"),
        ("wan2.1_i2v_precisecache", "Positive prompt", "text"),  # through WanImageToVideo
        ("wan2.1_vace_precisecache", "Positive prompt", "text"),
        ("wan2.2_t2v_14B_precisecache", "Positive prompt", "text"),  # two samplers share it
        ("wan2.2_compare", "Positive prompt", "text"),  # three do
        ("hunyuan_video_t2v_precisecache", "Prompt", "text"),  # through a guider without a negative prompt
        ("wan2.1_t2v_raylight_precisecache", "Positive prompt", "text"),
        ("hunyuan_video_raylight_precisecache", "Prompt", "text"),
        ("hunyuan_video_i2v_precisecache", "Prompt", "prompt"),
        ("hunyuan_video_1.5_t2v_precisecache", "Positive prompt", "text"),
    ],
)
def test_the_positive_prompt_is_found(name, title, widget):
    graph = load_graph(GRAPHS / f"{name}.json")
    (node,) = (key for key, node in graph.items() if node["_meta"]["title"] == title)
    assert prompt_input(graph, None) == (node, widget)


def test_the_prompt_may_be_in_a_node_of_its_own_and_must_be_the_only_one():
    def encoder(text):
        return {"class_type": "CLIPTextEncode", "inputs": {"text": text}}

    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "a fox"}},
        "2": encoder(["1", 0]),
        "3": encoder("blurry"),
        "4": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0]}},
    }
    assert prompt_input(graph, None) == ("1", "value")
    assert prompt_input(graph, "My.Title.text") == ("My.Title", "text")
    graph["5"] = {"class_type": "KSampler", "inputs": {"positive": ["3", 0]}}
    with pytest.raises(OverrideError, match=r"\(1\.value or 3\.text\): name it with --prompt-input"):
        prompt_input(graph, None)
    with pytest.raises(OverrideError, match="NODE.INPUT, got 'text'"):
        prompt_input(graph, "text")


def run(computed, reused, speedup=None, saved=None, sampling=None):
    seconds = {"seconds": {"sampling": sampling}} if sampling else {}
    return {"computed": computed, "reused": reused, "speedup": speedup, "saved_seconds": saved, **seconds}


def test_speed_ups_of_several_runs_are_weighted_by_their_time():
    two = [run(5, 5, 2.0, 10.0, 10.0), run(5, 5, 4 / 3, 10.0, 30.0)]
    assert speedup_of(two).ratio == pytest.approx(1.5) and speedup_of(two).saved == 20  # (40 + 20) / 40
    without = [run(5, 5, 2.0, 10.0), run(5, 5, 4 / 3, 10.0, 30.0)]  # 10 / (2 - 1) s
    assert speedup_of(without).ratio == pytest.approx(1.5)
    assert speedup_of([*two, run(10, 0)]) == speedup_of(two)
    assert speedup_of([run(10, 0)]) is None and speedup_of([]) is None


def test_the_table_has_a_row_for_each_and_totals_of_what_is_done():
    outcomes = [
        Outcome("a.json", "done", 70.0, [run(8, 12, 2.0, 60.0, 60.0)]),
        Outcome("long_name.json", "failed", 1.0, [run(8, 12, 2.0, 60.0, 60.0)], "out of memory\nin node 4\n  File x"),
        Outcome("c.json", "failed", 0.0, [], "the server is gone:\nits log"),
        Outcome("d.json", "done", 20.0, [run(9, 1, 0.9, -2.0, 20.0)]),
        Outcome("e.json", "not run"),
    ]
    assert table(outcomes) == [
        "file            seconds  computed  reused  speed-up  time saved  state",
        "-" * 92,
        "a.json             70.0         8      12     2.00x   1 min 0 s  done",
        "long_name.json      1.0         8      12     2.00x   1 min 0 s  failed: out of memory; in node 4",
        "c.json              0.0         -       -         -           -  failed: the server is gone",
        "d.json             20.0         9       1     0.90x      -2.0 s  done",
        "e.json              0.0         -       -         -           -  not run",
        "-" * 92,
        "total              91.0        17      13     1.73x        58 s  2 done, 2 failed, 1 not run",
    ]


def test_the_line_of_one_graph_leaves_out_what_is_not_known():
    assert Outcome("a", "done", 12.34).line() == "done in 12 s"
    assert Outcome("a", "done", 2.0, [run(20, 0)]).line() == "done in 2.0 s: 20 calls computed, 0 reused"
    line = Outcome("a", "done", 70.0, [run(8, 12, 2.0, 60.0, 60.0)]).line()
    assert line == "done in 1 min 10 s: 8 calls computed, 12 reused, 2x faster (estimate), saved 1 min 0 s"
