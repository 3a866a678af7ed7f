"""Ranks that sample one latent together do the same at every call, whatever goes wrong on one of them."""

import pytest
import torch
from ranks import STEPS, Fault, Team, course

from precisecache_core.agreement import ASIDE, DECIDE, TRIAL, Agreement, largest_of
from precisecache_core.group import ALONE, MESSAGE_BYTES, Group, GroupLost

PLANNED = ({"share": 0.45}, None)
BY_LFD = ({"alpha": 1.0, "warmup": 3}, None)
FLASH = ({"share": 0.45}, {"cache_rate": 0.5, "reuse_steps": 2})
BLOCKS = (None, {"cache_rate": 0.5, "reuse_steps": 2})
PER_BLOCK = (None, {"cache_rate": 0.5, "reuse_steps": 2, "storage": "per_block"})

IN_LFDS = ("lfd up", "lfd down", "lfd nan", "nan of trial", "no memory of trial", "no memory to compare")
IN_ANY_RUN = ("nan of call", "no memory to store", "no memory to reuse")
IN_REHEARSALS = ("nan of trial", "no memory of trial", "no memory to rehearse", "no memory to plan")
IN_BLOCKS = ("no memory to copy", "no memory to add", "other scores")
ENDS_THE_CACHE = ("nan of call", "no memory to store", "no memory to reuse", "no memory to copy", "no memory to add")
MOST = 10 * STEPS  # a fault strikes less often than this in any course
TRIED = 5  # moments of a course, about: every call, and some of its blocks


@pytest.fixture(scope="module")
def team():
    with Team(4) as made:
        yield made


@pytest.fixture(scope="module")
def alone():
    """course() in this process, and how often the fault could have struck; the same course is run once."""
    known = {}

    def run(caches, kind=None, when=None):
        key = (repr(caches), kind, when)
        if key not in known:
            fault = Fault(kind, when)
            known[key] = course(caches, fault), fault.count + 1
        return known[key]

    return run


def is_same(first, second):
    (x, entry), (other, expected) = first, second
    bound = 1e-5 * other.nan_to_num().abs().max().item()
    return entry["decisions"] == expected["decisions"] and torch.allclose(x, other, rtol=0, atol=bound, equal_nan=True)


def what_was_done(entry):
    blocks = entry["blockcache"] or {}
    return entry["decisions"], blocks.get("block_calls_skipped"), blocks.get("pivotal"), entry["standing_aside"]


def check(results, allowed, is_latent_common=True):
    """All ranks did the same, have the same latent, and it is that of one of the allowed courses."""
    first = results[0]
    for x, entry in results[1:]:
        assert what_was_done(entry) == what_was_done(first[1])
        assert torch.allclose(x, first[0], rtol=0, atol=0, equal_nan=True) or not is_latent_common
    assert any(is_same(first, other) for other in allowed), first[1]["decisions"]


@pytest.mark.parametrize("members", [2, 4])
@pytest.mark.parametrize("caches", [PLANNED, BY_LFD, FLASH, BLOCKS, PER_BLOCK], ids=str)
def test_several_ranks_do_what_one_does(team, alone, caches, members):
    clean, _ = alone(caches)
    check(team.run(caches, members=members), [clean])
    assert "R" in clean[1]["decisions"] or clean[1]["blockcache"]["block_calls_skipped"]


CASES = [(BY_LFD, kind) for kind in (*IN_LFDS, *IN_ANY_RUN)]
CASES += [(PLANNED, kind) for kind in (*IN_REHEARSALS, *IN_ANY_RUN)]
CASES += [(caches, kind) for caches in (BLOCKS, PER_BLOCK) for kind in IN_BLOCKS]
CASES += [(FLASH, kind) for kind in ("no memory to store", "no memory to add")]


@pytest.mark.parametrize("caches, kind", CASES, ids=str)
def test_a_fault_on_one_rank_at_any_time(team, alone, caches, kind):
    clean, _ = alone(caches)
    last = alone(caches, kind, MOST)[1]
    changed = 0
    for when in (None, *range(0, last, max(1, round(last / TRIED)))):
        faulty, _ = alone(caches, kind, when)
        # of a pass that skips several ranges of blocks, all are computed: as if the first of them had failed
        earlier = range(max(when - 2, 0), when) if kind == "no memory to add" and when else ()
        allowed = [clean, faulty, *(alone(caches, kind, before)[0] for before in earlier)]
        results = team.run(caches, kind, when)
        check(results, allowed, is_latent_common=kind != "nan of call")  # in the last call it stays on its rank
        changed += not is_same(results[0], clean)
    assert last < MOST and (changed or kind not in ENDS_THE_CACHE)


@pytest.mark.parametrize("caches, kind", [(BY_LFD, "lfd nan"), (PLANNED, "no memory to reuse")], ids=str)
@pytest.mark.parametrize("faulty_rank", [0, 3])
def test_a_fault_on_one_of_four_ranks(team, alone, caches, kind, faulty_rank):
    clean, _ = alone(caches)
    for when in (None, 2):
        faulty, _ = alone(caches, kind, when)
        check(team.run(caches, kind, when, members=4, faulty_rank=faulty_rank), [clean, faulty])


@pytest.mark.parametrize("kind", ["error of call", "error of trial"])
@pytest.mark.parametrize("caches", [PLANNED, BY_LFD, FLASH], ids=str)
def test_a_rank_that_ends_early_leaves_the_others_computing(team, alone, caches, kind):
    """The model's own exchanges would end the others too; here each rank computes the whole model."""
    clean, _ = alone(caches)
    for when in range(alone(caches, kind, MOST)[1]):
        (x, entry), other = team.run(caches, kind, when, is_split=False)
        assert other == "Broken" and torch.isfinite(x).all()
        done = entry["decisions"]
        common = next((i for i, (a, b) in enumerate(zip(done, clean[1]["decisions"])) if a != b), STEPS)
        assert set(done[common:]) <= {"C"}, done
        assert any("not at the same point" in text for text in entry["warnings"]) or done == clean[1]["decisions"]
    check(team.run(caches), [clean])  # the next run is as if nothing had happened


def test_a_rank_that_is_killed_leaves_the_others_computing(team):
    """This is the last test of the team: its group of four is lost."""
    for x, entry in team.run(PLANNED, members=4, faulty_rank=3, is_split=False, is_killed=True):
        assert entry["decisions"] == "C" * STEPS and torch.isfinite(x).all()
        assert any("do not answer" in text for text in entry["warnings"])


class Script(Group):
    """Another rank that says what it was told to say; None: it does not answer."""

    size = 2

    def __init__(self, *says):
        self.says = list(says)
        self.posted = []

    def exchange(self, message):
        other = self.says.pop(0)
        if other is None:
            raise GroupLost("nobody answers")
        return [message, {"point": message["point"], "able": True, "wishes": {}, "values": message["values"], **other}]

    def post(self, message):
        self.posted.append(message)


class Echo(Group):
    """Another rank that always says the same."""

    size = 2
    exchanges = 0

    def exchange(self, message):
        self.exchanges += 1
        return [message, message]


@pytest.mark.parametrize("caches", [PLANNED, BY_LFD, FLASH, BLOCKS], ids=str)
def test_agreeing_reads_the_device_no_more_often(monkeypatch, caches):
    reads = []
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__", "__index__"):

        def counted(tensor, *args, original=getattr(torch.Tensor, name), name=name):
            reads.append(name)
            return original(tensor, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    counts, results = [], []
    for group in (ALONE, Echo()):
        results.append(course(caches, Fault(), group))
        counts.append(len(reads))
        reads.clear()
    assert is_same(results[1], results[0]) and group.exchanges > 0
    assert 0 < counts[1] <= counts[0]


class Adopted(list):
    """(subject, reason) of every wish that was adopted."""

    def lfcache(self, reason):
        self.append(("lfcache", reason))

    def trials(self, reason):
        self.append(("trials", reason))

    def blockcache(self, reason):
        self.append(("blockcache", reason))


def agreement_with(*says):
    made, adopted = Agreement(Script(*says)), Adopted()
    for subject in ("lfcache", "trials", "blockcache"):
        made.on_wish(subject, getattr(adopted, subject))
    return made, adopted


def test_alone_a_rank_agrees_with_itself():
    made, adopted = Agreement(), Adopted()
    made.on_wish("lfcache", adopted.lfcache)
    made.wish("lfcache", "no memory")
    assert adopted == [("lfcache", "no memory")] and not made.wishes("lfcache") and made.exchanges == 0
    assert (
        made.settle(DECIDE, False, 3) == (False, [3]) and made.common(b"plan") == b"plan" and made.largest(2.0) == 2.0
    )
    made.end()


def test_a_wish_waits_until_the_others_have_heard_it():
    made, adopted = agreement_with({}, {"wishes": {"blockcache": "too small"}})
    made.wish("lfcache", "no memory")
    assert adopted == [] and made.wishes("lfcache")
    assert made.settle(DECIDE, True).is_able
    assert adopted == [("lfcache", "no memory")] and not made.wishes("lfcache")
    made.settle(DECIDE)
    assert adopted[1:] == [("blockcache", "on GPU 1: too small")] and made.exchanges == 2


@pytest.mark.parametrize("other", [{"point": TRIAL}, {"point": "end"}, {"point": None}, None], ids=str)
def test_ranks_that_lose_each_other_stand_aside_for_good(other):
    made, adopted = agreement_with(other)
    assert not made.settle(DECIDE, True).is_able
    assert [subject for subject, _ in adopted] == ["lfcache", "trials", "blockcache"] and not made.is_open
    assert made.settle(DECIDE, True).is_able  # nothing is exchanged any more
    made.end()
    assert made.group.posted == []


def test_a_rank_that_stands_aside_may_meet_others_anywhere():
    made, adopted = agreement_with({"point": ASIDE, "able": False, "wishes": {"lfcache": "no memory"}}, {})
    assert not made.settle(TRIAL, True).is_able and made.is_open
    assert adopted == [("lfcache", "on GPU 1: no memory")]
    made.end()
    made.end()
    assert [message["point"] for message in made.group.posted] == ["end"]


def test_a_plan_that_differs_is_that_of_rank_0():
    data = bytes(range(256)) * 20
    made, _ = agreement_with({"values": ["another", len(data)]}, *[{}] * 10)
    assert made.common(data) == data and made.exchanges == 1 + -(-len(data) // (MESSAGE_BYTES // 2))
    made, _ = agreement_with({"able": False})
    assert made.common(data) is None


def test_the_largest_value_counts():
    assert largest_of([1.0, 2.0]) == 2.0 and largest_of([1.0, float("nan")]) == float("inf")
    assert largest_of([1.0, None]) is None and largest_of([None]) is None
    assert ALONE.exchange({"a": 1}) == [{"a": 1}] and ALONE.post({}) is None
