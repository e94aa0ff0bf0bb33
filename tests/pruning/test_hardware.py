"""What a computer says of itself."""

from __future__ import annotations

import platform

from pruning import hardware


def test_the_processor_is_named_as_the_system_names_it(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "Path", lambda path: info)
    assert hardware.processor() == platform.processor()
    info.write_text("processor\t: 0\nmodel name\t: Some Chip\nflags\t\t: avx2 fma\n")
    assert (hardware.processor(), hardware.instructions()) == ("Some Chip", "avx2 fma")
