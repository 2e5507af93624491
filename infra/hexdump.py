"""bytes → lines of offset, hexadecimal numbers and what of them can be printed, as `hexdump -C` writes them."""

_WIDTH = 16  # bytes of a line
_HALF = 8


def hexdump(data: bytes, *, start: int = 0, limit: int = 4_096) -> str:
    """At most `limit` bytes from `start` on; the last line says how many more there are."""
    end = min(len(data), start + limit)
    lines = [_line(data[at : min(at + _WIDTH, end)], at) for at in range(start, end, _WIDTH)]
    if end < len(data):
        lines.append(f"… {len(data) - end:,} more bytes")
    return "\n".join(lines)


def _line(data: bytes, at: int) -> str:
    halves = f"{data[:_HALF].hex(' '):<23}  {data[_HALF:].hex(' '):<23}"
    printed = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{at:08x}  {halves}  |{printed}|"
