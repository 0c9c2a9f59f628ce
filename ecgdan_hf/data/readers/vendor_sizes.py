"""Checks the sizes that the file of a cart or Holter recorder declares, before its decoder allocates memory."""

import re
import struct
from base64 import b64decode
from pathlib import Path

import numpy as np

TEXT_KINDS = ("hl7-aecg", "muse", "sierra", "mortara", "kardia")
MAX_TEXT_BYTES = 64 << 20  # XML and JSON take many times their size in memory
MAX_SIERRA_CHANNELS = 64
MAX_XLI_BYTES = 4 << 20  # three minutes of 12 leads at 1000 Hz
LAST_LZW_CODE = 1022
MAX_SCP_SAMPLES = 8 * 0xFFFF  # of a lead: its bytes are counted in 16 bits, and a sample takes at least one bit
DEFLATED_DICOM = "1.2.840.10008.1.2.1.99"
SCP_START = struct.Struct("<HIHHI")  # checksum, size; of section 0: checksum, number (0), size


def check_claims(path: Path, kind: str) -> None:
    """Raises ValueError if a file of a format of `vendors` declares more than it can hold."""
    size = path.stat().st_size
    if kind in TEXT_KINDS and size > MAX_TEXT_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_TEXT_BYTES >> 20} MiB of text, got {size >> 20} MiB")
    if kind == "sierra":
        _check_sierra(path, path.read_bytes().replace(b"\0", b""))  # it may be UTF-16
    if kind == "dicom":
        _check_dicom(path, path.read_bytes())
    if kind == "scp-ecg":
        _check_scp(path, path.read_bytes())


def _check_sierra(path: Path, content: bytes) -> None:
    """Rejects too many channels and decompression bombs."""
    for count in re.findall(rb"numberchannels(?:allocated|valid)\s*>\s*(\d+)", content):
        if int(count[:9]) > MAX_SIERRA_CHANNELS:
            raise ValueError(f"{path}: expected at most {MAX_SIERRA_CHANNELS} channels, got {count[:20].decode()}")
    for text in re.findall(rb"<parsedwaveforms[^>]*XLI[^>]*>([^<]*)", content):
        letters = re.sub(rb"[^A-Za-z0-9+/]", b"", text)  # the decoder rejects what is not Base64
        packed = b64decode(letters[: len(letters) // 4 * 4])
        at = total = 0
        while at < len(packed) and total <= MAX_XLI_BYTES:
            size = int.from_bytes(packed[at : at + 4], "little")
            if not 0 < size <= len(packed) - at:  # the decoder rejects that
                break
            total += _decompressed_bytes(packed[at + 8 : at + 8 + size])
            at += 8 + size
        if max(total, len(packed)) > MAX_XLI_BYTES:
            raise ValueError(
                f"{path}: expected waveforms of at most {MAX_XLI_BYTES >> 20} MiB, got {total} bytes or more"
            )


def _decompressed_bytes(packed: bytes) -> int:
    """Counts the bytes that 10-bit LZW codes decompress to, without decompressing; stops above the limit."""
    bits = np.unpackbits(np.frombuffer(packed[:MAX_XLI_BYTES], dtype=np.uint8))
    codes = bits[: len(bits) // 10 * 10].reshape(-1, 10) @ (1 << np.arange(9, -1, -1))
    lengths, previous, total, following = dict.fromkeys(range(256), 1), 0, 0, 256
    for code in codes.tolist():
        if code > LAST_LZW_CODE or total > MAX_XLI_BYTES:
            break
        length = lengths.setdefault(code, previous + 1)  # an unknown code repeats the previous one
        if previous and following <= LAST_LZW_CODE:
            lengths[following] = previous + 1
            following += 1
        previous, total = length, total + length
    return total


def _check_dicom(path: Path, content: bytes) -> None:
    """Rejects deflated DICOM, which pydicom inflates without a limit, and waveform data longer than the file."""
    head = content[:4096]
    if re.search(rb"\x02\x00\x10\x00UI..%b\x00?(?!\d)" % re.escape(DEFLATED_DICOM.encode()), head, re.DOTALL):
        raise ValueError(f"{path}: expected DICOM that is not deflated, got transfer syntax {DEFLATED_DICOM}")
    for found in re.finditer(rb"\x00\x54\x10\x10(?:O[BW]\x00\x00)?(....)", content, re.DOTALL):
        claimed = int.from_bytes(found.group(1), "little")
        if len(content) < claimed < 0xFFFFFFFF:  # 0xFFFFFFFF: length not stated
            raise ValueError(f"{path}: expected at least {claimed} bytes, as its waveform data, got {len(content)}")


def _check_scp(path: Path, content: bytes) -> None:
    """Rejects more samples than a lead's bytes can hold; EN 1064 sections 3 (leads), 4 and 5 (reference beat)."""
    bodies = _scp_sections(content)
    leads = bodies.get(3, b"")
    stored = min(leads[0], (len(leads) - 2) // 9) if len(leads) > 2 else 0
    counts = [end - start + 1 for start, end, _ in struct.iter_unpack("<IIB", leads[2 : 2 + 9 * stored])]
    if 4 in bodies and 5 in bodies and len(bodies[4]) >= 2 and len(bodies[5]) >= 4:
        milliseconds, microseconds = *struct.unpack_from("<H", bodies[4]), *struct.unpack_from("<H", bodies[5], 2)
        counts.append(milliseconds * 1000 // max(microseconds, 1))
    if max(counts, default=0) > MAX_SCP_SAMPLES:
        raise ValueError(f"{path}: expected at most {MAX_SCP_SAMPLES} samples in a lead of SCP-ECG, got {max(counts)}")


def _scp_sections(content: bytes) -> dict[int, bytes]:
    """Bodies of the sections that section 0 points to, without their headers of 16 bytes."""
    if len(content) < SCP_START.size:
        return {}
    end = min(6 + SCP_START.unpack_from(content)[4], len(content))
    pointers = content[22 : 22 + max(end - 22, 0) // 10 * 10]
    return {
        number: content[at + 15 : at - 1 + length] for number, length, at in struct.iter_unpack("<HII", pointers) if at
    }
