"""The history against a plain list that keeps everything."""

from hypothesis import given
from hypothesis import strategies as st

from clser.engine.history import Entry, History

PUT = st.tuples(st.floats(0, 3), st.sampled_from([b"r/a/", b"r/b/", b"s/a/"]), st.integers(1, 60), st.booleans())


def filled(
    puts: list[tuple[float, bytes, int, bool]], keep_s: float, most: int
) -> tuple[History, list[tuple[Entry, bool]], float]:
    history, sent, now, seqs = History(keep_s, most), [], 0.0, dict.fromkeys((b"r/a/", b"r/b/", b"s/a/"), 0)
    for passed, topic, size, lasting in puts:
        now += passed
        seqs[topic] += 1
        sent.append((history.put(now, topic, seqs[topic], b"x" * size, lasting), lasting))
    return history, sent, now


@given(st.lists(PUT, max_size=60), st.floats(1, 20))
def test_what_is_young_enough_comes_back_in_the_order_it_was_sent(
    puts: list[tuple[float, bytes, int, bool]], keep_s: float
) -> None:
    history, sent, now = filled(puts, keep_s, 1 << 20)
    young = [entry for entry, _ in sent if entry.at_s >= now - keep_s]
    assert history.since(0.0, [b""], most=1000).entries == young
    assert history.bytes == sum(len(entry.body) for entry in young)
    assert history.cut_short == 0
    assert history.since(now - keep_s / 2, [b"r/"], lasting=True, most=1000).entries == [
        e for e, lasting in sent if lasting and e.at_s >= now - keep_s / 2 and e.topic.startswith(b"r/")
    ]


@given(st.lists(PUT, max_size=60), st.integers(1, 7))
def test_pages_put_together_are_the_whole(puts: list[tuple[float, bytes, int, bool]], most: int) -> None:
    history, _, _ = filled(puts, 60.0, 1 << 20)
    whole = history.since(0.0, [b"r/"], most=1000).entries
    pages, after, more = [], 0, True
    while more:
        page = history.since(0.0, [b"r/"], after=after, most=most)
        pages += page.entries
        more, after = page.more, page.entries[-1].order if page.entries else 0
        assert len(page.entries) <= most
    assert pages == whole


@given(st.lists(PUT, max_size=60), st.integers(0, 30), st.integers(0, 30))
def test_a_topics_numbers_come_back_and_those_that_are_gone_are_counted(
    puts: list[tuple[float, bytes, int, bool]], first: int, last: int
) -> None:
    history, sent, now = filled(puts, 8.0, 1 << 20)
    kept = [(e, x) for e, x in sent if e.topic == b"r/a/" and first <= e.seq <= last and e.at_s >= now - 8.0]
    assert history.of(b"r/a/", first, last).entries == [e for e, _ in kept]
    assert history.of(b"r/a/", first, last, lasting=True).entries == [e for e, lasting in kept if lasting]
    assert history.known(b"r/a/", first, last) == (sum(x for _, x in kept), sum(not x for _, x in kept))


@given(st.lists(PUT, max_size=80), st.integers(1, 400))
def test_where_bytes_do_not_suffice_what_is_worth_nothing_later_goes_first(
    puts: list[tuple[float, bytes, int, bool]], most: int
) -> None:
    history, sent, _ = filled(puts, 1000.0, most)
    assert history.bytes <= most
    lasting = history.since(0.0, [b""], lasting=True, most=1000).entries
    everything = history.since(0.0, [b""], most=1000).entries
    wanted = [entry for entry, last in sent if last]
    assert lasting == wanted[len(wanted) - len(lasting) :]
    assert history.cut_short == len(sent) - len(everything)
    if len(lasting) < len(wanted):  # a final had to go: at that moment there was no partial left to go in its place
        lost = wanted[len(wanted) - len(lasting) - 1]
        assert all(entry.order > lost.order for entry in everything)
