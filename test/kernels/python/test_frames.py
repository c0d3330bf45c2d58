"""The hand-written messages against protobuf's own encoder and decoder."""

import random
import sys
import unittest

import peer

sys.path.insert(0, str(peer.KERNEL_DIRECTORY))
import frames  # noqa: E402

pb = peer.generated_messages()


class Encoding(unittest.TestCase):
    """What frames.py writes, protobuf reads."""

    def test_ready(self):
        message = pb.Ready.FromString(frames.ready("python", "3.13.5"))
        self.assertEqual((message.protocol, message.language, message.language_version), (2, "python", "3.13.5"))

    def test_started(self):
        for count in (0, 1, 127, 128, 300, 2**32 - 1):
            self.assertEqual(pb.Started.FromString(frames.started(count)).execution_count, count)

    def test_bundle(self):
        parts = [frames.Part("text/plain", "größe".encode()), frames.Part("image/png", bytes(range(256)) * 10), frames.Part("a/b", b"")]
        message = pb.Bundle.FromString(frames.bundle(parts, [7, 100, 0], "id", True))
        self.assertEqual([(p.type, p.size, p.data) for p in message.parts], [
            ("text/plain", 7, parts[0].data), ("image/png", 2560, parts[1].data[:100]), ("a/b", 0, b""),
        ])
        self.assertEqual((message.display_id, message.update), ("id", True))

    def test_part_data(self):
        message = pb.PartData.FromString(frames.part_data(3, 2**40, b"\0\xff"))
        self.assertEqual((message.part, message.offset, message.data), (3, 2**40, b"\0\xff"))

    def test_error_keeps_empty_lines(self):
        message = pb.Error.FromString(frames.error("E", "v", ["a", "", "b"]))
        self.assertEqual((message.name, message.value, list(message.traceback)), ("E", "v", ["a", "", "b"]))

    def test_a_lone_surrogate_becomes_text(self):
        self.assertEqual(pb.Error.FromString(frames.error("E", "\ud800", [])).value, "\\ud800")

    def test_clear_output(self):
        self.assertTrue(pb.ClearOutput.FromString(frames.clear_output(True)).wait)
        self.assertFalse(pb.ClearOutput.FromString(frames.clear_output(False)).wait)

    def test_done(self):
        message = pb.Done.FromString(frames.done(True))
        self.assertTrue(message.ok)
        self.assertFalse(message.HasField("exit_code"))
        for code in (0, 3, 255, -1, -(2**31)):
            message = pb.Done.FromString(frames.done(False, code))
            self.assertFalse(message.ok)
            self.assertTrue(message.HasField("exit_code"))
            self.assertEqual(message.exit_code, code)


class Decoding(unittest.TestCase):
    """What protobuf writes, frames.py reads."""

    def test_hello(self):
        data = pb.Hello(protocol=2, working_directory="/home/ü").SerializeToString()
        self.assertEqual(frames.parse_hello(data), (2, "/home/ü"))

    def test_execute(self):
        message = pb.Execute(code="print('é')\n" * 1000, combine_output=True)
        message.environment.add(name="A", value='x "y"\n$z')
        message.environment.add(name="B", value="")
        request = frames.parse_execute(message.SerializeToString())
        self.assertEqual(request, (message.code, [("A", 'x "y"\n$z'), ("B", "")], True))

    def test_absent_fields_have_their_default(self):
        self.assertEqual(frames.parse_execute(b""), ("", [], False))
        self.assertEqual(frames.parse_hello(b""), (0, ""))

    def test_unknown_fields_are_skipped(self):
        unknown = b"\x78\x05" + b"\x7d\0\0\0\0" + b"\x79" + b"\0" * 8 + b"\x7a\x03abc"
        self.assertEqual(frames.parse_execute(unknown + pb.Execute(code="1").SerializeToString() + unknown).code, "1")

    def test_what_is_cut_off_is_malformed_or_shorter(self):
        data = pb.Execute(code="x = 1", combine_output=True).SerializeToString()
        for n in range(1, len(data)):
            if n in (7,):  # whole fields only
                continue
            with self.assertRaises(frames.Malformed):
                frames.parse_execute(data[:n])

    def test_malformed(self):
        for data in (b"\x0a\x01\xff", b"\x0a\x7f", b"\x08\x01", b"\x0b", b"\x00\x01", b"\xff" * 11, b"\x0d\0\0", b"\x12\x02\x08\x01"):
            with self.subTest(data=data), self.assertRaises(frames.Malformed):
                frames.parse_execute(data)

    def test_random_bytes_raise_nothing_else(self):
        source = random.Random(1)
        for _ in range(20000):
            data = source.randbytes(source.randrange(30))
            try:
                frames.parse_execute(data)
                frames.parse_hello(data)
            except frames.Malformed:
                pass


class Headers(unittest.TestCase):
    def test_round_trip(self):
        frame = frames.frame(frames.DISPLAY, 7, b"abc", frames.SYNC)
        self.assertEqual(frame, b"\x03\0\0\0\x44\x01\0\0\x07\0\0\0abc")
        self.assertEqual(frames.header(frame[:12]), (3, frames.DISPLAY, frames.SYNC, 0, 7))

    def test_numbers_are_those_of_the_protocol(self):
        for name, number in pb.FrameType.items():
            if number:
                self.assertEqual(getattr(frames, name.removeprefix("FRAME_TYPE_")), number)

    def test_limits(self):
        with self.assertRaises(ValueError):
            frames.frame(frames.DONE, 1, bytes(frames.PAYLOAD_MAX + 1))
        with self.assertRaises(frames.Malformed):
            frames.header(frames.HEADER.pack(frames.PAYLOAD_MAX + 1, 2, 0, 0, 1))

    def test_commands_are_numbered(self):
        self.assertEqual(frames.header(frames.HEADER.pack(0, frames.EXECUTE, 0, 0xFFFF, 1)).serial, 0xFFFF)


if __name__ == "__main__":
    unittest.main()
