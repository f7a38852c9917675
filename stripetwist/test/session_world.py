"""A pair of sessions, everything that can befall it, and an oracle of what must come out."""

from dataclasses import dataclass, replace
from zlib import crc32

from stripetwist.core import events
from stripetwist.core.config import KIB, MIB, Limits
from stripetwist.core.errors import Code, OpenRefused
from stripetwist.testing import End, Pair, pattern
from stripetwist.testing_pipes import Pipe

_OVER = (events.StreamFinished, events.StreamReset, events.StreamRefused)
_MOST_SUBFLOWS = 8
_MOST_STREAMS = 12


def _crc(value: int, data: bytes) -> int:
    return crc32(data, value)


@dataclass
class Foreign:
    """What other sessions of the same process have booked in an end's budget."""

    promised: int = 0
    stored: int = 0


class World:
    """
    Two sessions under attack by circumstances.

    What was written is kept in a dictionary of our own, by stream and end; C{check} compares
    it with what came out, and recounts what the sessions have booked.  C{finish} heals the
    world and demands that everything comes to its end.
    """

    def __init__(self, max_memory: int = 64 * MIB, max_unsent: int = MIB) -> None:
        limits = replace(Limits(), max_memory=max_memory, max_unsent=max_unsent)
        self.pair = Pair(limits)
        self.ends = (self.pair.a, self.pair.b)
        self.sent: dict[tuple[int, End], bytearray] = {}
        self.told: dict[tuple[int, End], list[bytes]] = {}
        self.broken: set[int] = set()
        self.unread: set[tuple[int, End]] = set()
        self.foreign = {end: Foreign() for end in self.ends}
        self.asleep: set[End] = set()
        self._ids: list[int] = []
        self._read = dict.fromkeys(self.ends, 0)
        self._over: dict[End, set[int]] = {end: set() for end in self.ends}
        self._granted: dict[tuple[int, End], int] = {}
        self._half_joined = 1000
        self._checked: set[int] = set()

    # ---- choosing

    def end(self, which: int) -> End:
        """The dialer's end or the acceptor's."""
        return self.ends[which % 2]

    def other(self, end: End) -> End:
        """The one across."""
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def stream(self, which: int, end: End) -> int | None:
        """One of the streams that this end's application holds open."""
        ids = [i for i, c in end.streams.items() if c.outcome == "open"]
        return ids[which % len(ids)] if ids else None

    def subflow(self, which: int) -> int | None:
        """One of the living subflows."""
        ids = list(self.pair.subflows)
        return ids[which % len(ids)] if ids else None

    # ---- applications

    def open(self, end: End) -> None:
        """Open a stream, if that is allowed."""
        if sum(c.outcome == "open" for c in end.streams.values()) >= _MOST_STREAMS:
            return
        try:
            stream_id = end.open()
        except OpenRefused:
            return
        assert stream_id not in self._ids, "an id was used twice"
        self._ids.append(stream_id)

    def associate(self, end: End, copies: int) -> None:
        """Make an association, if that is allowed."""
        if sum(c.outcome == "open" for c in end.streams.values()) >= _MOST_STREAMS:
            return
        try:
            self._ids.append(end.associate(copies))
        except OpenRefused:
            return

    def tell(self, which: int, end: End, size: int) -> None:
        """Send a datagram on a stream, which need not be one that carries them."""
        if (stream_id := self.stream(which, end)) is not None:
            told = self.told.setdefault((stream_id, end), [])
            told.append(len(told).to_bytes(4, "big") + bytes([stream_id % 251]) * size)
            end.send_datagram(stream_id, told[-1])

    def set_policy(self, end: End, accepts: bool) -> None:
        """What this end answers from now on."""
        refusal = None if accepts else OpenRefused(Code.NOT_ALLOWED, "no")
        end.policy = lambda request: refusal

    def write(self, which: int, end: End, size: int) -> None:
        """Write, if the stream is open and the session has room; if there is none, open one."""
        if (stream_id := self.stream(which, end)) is None:
            self.open(end)
            return
        if end.streams[stream_id].ended or not end.streams[stream_id].may_write:
            return
        sent = self.sent.setdefault((stream_id, end), bytearray())
        data = pattern(size, stream_id * 2 + self.ends.index(end), len(sent))
        sent += data
        end.write(stream_id, data)

    def half_close(self, which: int, end: End) -> None:
        """No more bytes from here."""
        stream_id = self.stream(which, end)
        if stream_id is not None and not end.streams[stream_id].ended:
            end.end(stream_id)

    def reset(self, which: int, end: End) -> None:
        """Break a stream."""
        stream_id = self.stream(which, end)
        if stream_id is not None:
            self.broken.add(stream_id)
            end.reset(stream_id)

    def pause(self, which: int, end: End) -> None:
        """The application takes nothing for now."""
        stream_id = self.stream(which, end)
        if stream_id is not None:
            end.stop_reading(stream_id)

    def unpause(self, which: int, end: End) -> None:
        """It goes on taking."""
        stream_id = self.stream(which, end)
        if stream_id is not None:
            end.resume_reading(stream_id)

    def stop(self, which: int, end: End) -> None:
        """Nobody will ever read what still comes."""
        stream_id = self.stream(which, end)
        if stream_id is not None and end.streams[stream_id].accepted:
            self.unread.add((stream_id, end))
            end.session.stop_reading(stream_id)
            end.turn()

    # ---- circumstances

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.pair.run(seconds)

    def add(self, rate: float, delay: float, checked: bool = False) -> None:
        """One more subflow, with checksums or without."""
        if len(self.pair.subflows) < _MOST_SUBFLOWS and not self.asleep:
            subflow_id = self.pair.add(rate, delay, checksum=_crc if checked else None)
            if checked:
                self._checked.add(subflow_id)

    def corrupt(self, which: int, end: End) -> None:
        """A bit flips where checksums can tell; that ends the subflow."""
        ids = [i for i in self.pair.subflows if i in self._checked]
        if ids and not self.asleep:
            self.pair.subflows[ids[which % len(ids)]][self.ends.index(end)].corrupt()

    def cut(self, which: int, keep_ab: float, keep_ba: float) -> None:
        """A subflow breaks; of what is in flight a part still arrives in each direction."""
        subflow_id = self.subflow(which)
        if subflow_id is not None and not self.asleep:
            there, back = self.pair.subflows[subflow_id]
            keeps = int(there.in_flight * keep_ab), int(back.in_flight * keep_ba)
            self.pair.cut(subflow_id, *keeps)

    def cut_in_a_duty(self, which: int, end: End, keep: float) -> None:
        """A subflow breaks between the next poll and its write."""
        end.hook = lambda: self.cut(which, keep, 1 - keep)

    def cut_all(self) -> None:
        """Nothing is left."""
        if not self.asleep:
            self.pair.cut_all()

    def lose_at_one_end(self, which: int, end: End) -> None:
        """A connection is dead, and only one end has noticed."""
        subflow_id = self.subflow(which)
        if subflow_id is not None and not self.asleep:
            for pipe in self.pair.subflows[subflow_id]:
                pipe.closed = True
            end.leave(subflow_id)

    def join_at_one_end(self, end: End) -> None:
        """A connection dies when only one end has seen its hello through."""
        if end in self.asleep:
            return
        self._half_joined += 1
        pipe = Pipe(self.pair.heap, 1e6, 0.01)
        end.join(self._half_joined, pipe, 0.02, None)
        end.turn()
        end.leave(self._half_joined)

    def stall(self, which: int, there: bool, back: bool) -> None:
        """A subflow goes silent."""
        if (subflow_id := self.subflow(which)) is not None:
            self.pair.stall(subflow_id, there, back)

    def resume(self, which: int) -> None:
        """It comes back."""
        if (subflow_id := self.subflow(which)) is not None:
            self.pair.resume(subflow_id)

    def slice(self, which: int, size: int) -> None:
        """A subflow delivers in pieces of that size."""
        if (subflow_id := self.subflow(which)) is not None:
            for pipe in self.pair.subflows[subflow_id]:
                pipe.slice = size

    def sleep(self, end: End) -> None:
        """A process is stopped."""
        if end not in self.asleep:
            self.asleep.add(end)
            end.sleep()

    def wake(self) -> None:
        """All that were stopped go on."""
        while self.asleep:
            self.asleep.pop().wake()

    def squeeze(self, end: End, promised: float, stored: float) -> None:
        """Other sessions take a share of what memory is left."""
        budget, foreign, most = end.budget, self.foreign[end], end.limits.max_memory
        room = max(0, most * 3 // 4 - budget.promised)
        foreign.promised += (more := int(room * promised))
        budget.promised += more
        foreign.stored += (more := int(most * stored / 2))
        budget.stored += more

    def relax(self, end: End) -> None:
        """They give it back."""
        foreign = self.foreign[end]
        end.budget.promised -= foreign.promised
        end.budget.stored -= foreign.stored
        self.foreign[end] = Foreign()
        end.session.room_again()
        end.turn()

    # ---- what must hold

    def check(self) -> None:
        """After each step."""
        self._end_together()
        for end in self.ends:
            self._check_delivered(end)
            self._check_told(end)
            self._check_budget(end)
            self._check_events(end)
            if end not in self.asleep:
                assert list(end.session.pollable(self.pair.heap.now)) == [], "a wakeup was lost"
        for stream_id in self._ids:
            for end in self.ends:
                self._check_credit(stream_id, end)

    def _end_together(self) -> None:
        """A session that is over is refused to the other end when that dials in."""
        if any(end.session.closed for end in self.ends):
            self.wake()
            self.pair.cut_all()
            for end in self.ends:
                end.session.finish(Code.UNKNOWN_SESSION, "it is gone")
                end.turn()

    def _check_delivered(self, end: End) -> None:
        for stream_id, carried in end.streams.items():
            sent = self.sent.get((stream_id, self.other(end)), b"")
            size = len(carried.got)
            assert size <= len(sent) and carried.got == sent[:size], "other bytes came out"
            if carried.saw_end and (stream_id, end) not in self.unread:
                assert size == len(sent), "the end came too early"
                assert self.other(end).streams[stream_id].ended, "an end that nobody wrote"

    def _check_told(self, end: End) -> None:
        """Datagrams come as they were sent, at most once, and do not wait for long."""
        for stream_id, carried in end.streams.items():
            came = [payload for _, payload, _ in carried.datagrams]
            told = self.told.get((stream_id, self.other(end)), [])
            assert all(told[int.from_bytes(one[:4], "big")] == one for one in came), "another came"
            assert len(set(came)) == len(came), "it came twice"
        datagrams = end.session._datagrams
        flows = datagrams._flows.values()
        waiting = [one for flow in flows for lane in flow.lanes for one in lane.queue]
        assert sum(one.size for one in waiting) == datagrams._held, "miscounted"
        if end not in self.asleep:
            oldest = min((one.born for one in waiting), default=self.pair.heap.now)
            assert self.pair.heap.now - oldest < end.limits.datagram_age, "it waits for ever"

    def _check_budget(self, end: End) -> None:
        table = end.session._streams.table.values()
        foreign = self.foreign[end]
        promised = sum(s.window.booked for s in table) + foreign.promised
        stored = sum(s.send.stored for s in table) + foreign.stored
        assert (end.budget.promised, end.budget.stored) == (promised, stored), "miscounted"
        assert promised <= end.limits.max_memory * 3 // 4, "over-promised"
        self._check_wakeups(end)
        for stream in table:
            held = stream.ready + stream.reorder.held
            assert held <= stream.window.limit - stream.window.consumed, "more than granted"
            assert stream.send.unsent <= stream.send.stored

    def _check_wakeups(self, end: End) -> None:
        """Who can send is in the queue, who can write was told, who can read was told."""
        streams = end.session._streams
        room = streams.room
        for stream in streams.table.values():
            if stream.may_send():
                assert stream.stream_id in end.session._outbox._turn, "it waits for nothing"
            if stream.is_readable and stream.answered:
                assert stream.told, "nobody was told"
        for stream in room._waiting.values():
            if stream.send.unsent <= end.limits.max_unsent // 2 and end.session.has_room:
                assert not room.left(stream), "nobody told the writer"

    def _check_events(self, end: End) -> None:
        """Nothing is told of a stream after its end, and it ends once."""
        log, over = end.log, self._over[end]
        for event in log[self._read[end] :]:
            stream_id = getattr(event, "stream_id", None)
            assert stream_id not in over, f"{event} after the end"
            if isinstance(event, events.StreamOpened):
                assert stream_id in self._ids, "nobody opened this"
            if isinstance(event, _OVER):
                over.add(event.stream_id)
        self._read[end] = len(log)

    def _check_credit(self, stream_id: int, end: End) -> None:
        """Nobody sends, or may send, beyond what the other has granted."""
        mine = end.session._streams.table.get(stream_id)
        theirs = self.other(end).session._streams.table.get(stream_id)
        if theirs is not None:
            granted = self._granted.get((stream_id, end), 8 * KIB)
            self._granted[stream_id, end] = max(granted, theirs.window.limit)
        if mine is not None and theirs is not None and not theirs.window.ended:
            granted = self._granted[stream_id, end]
            assert mine.send.offset <= mine.credit.limit
            assert mine.credit.limit <= granted, "credit out of nothing"
            assert theirs.reorder.highest <= mine.send.offset, "bytes out of nothing"

    # ---- the end

    def finish(self) -> None:
        """Heal everything, let two minutes pass, and look at what is left."""
        self.wake()
        for end in self.ends:
            self.relax(end)
            self.set_policy(end, True)
            end.hook = None
        for subflow_id in list(self.pair.subflows):
            self.pair.resume(subflow_id)
        self.pair.add(5e6, 0.01)
        self._end_together()
        self._end_all_streams()
        self.pair.run(60)
        self._end_all_streams()
        self.pair.run(60)
        self.check()
        for end in self.ends:
            self._check_streams_over(end)
            if not end.session.closed:
                self._check_at_rest(end)
            assert (end.budget.promised, end.budget.stored) == (0, 0)

    def _end_all_streams(self) -> None:
        for end in self.ends:
            for stream_id, carried in list(end.streams.items()):
                if carried.outcome == "open":
                    if not carried.ended:
                        end.end(stream_id)
                    end.resume_reading(stream_id)

    def _check_streams_over(self, end: End) -> None:
        closed = any(e.session.closed for e in self.ends)
        for stream_id, carried in end.streams.items():
            outcome = carried.outcome
            assert outcome != "open", f"stream {stream_id} hangs"
            if outcome == "reset":
                assert closed or stream_id in self.broken, "reset by nobody"
            if outcome == "finished" and (stream_id, end) not in self.unread:
                sent = self.sent.get((stream_id, self.other(end)), b"")
                assert carried.got == sent, "not everything arrived"

    def _check_at_rest(self, end: End) -> None:
        session, now = end.session, self.pair.heap.now
        outbox = session._outbox
        assert not session._streams.table and not session._streams.room._waiting
        assert not outbox.has_control and not outbox.has_data
        assert not session._datagrams._flows and not session._datagrams.waits
        assert outbox._owed_items == outbox._owed_bytes == outbox._flying_bytes == 0
        assert not session._subflows._dead, "a ledger waits for its last word"
        assert not session._streams._numbers._gaps
        for subflow in session._subflows.alive.values():
            assert not subflow.ledger.outstanding() and not subflow.ledger.in_flight
        assert session.next_deadline() > now, "something is due for ever"
        assert session.next_deadline() == min(
            subflow.life.ping_at(False) for subflow in session._subflows.alive.values()
        )
