"""The timing protocols: what a pass is, how many are run, in how many processes. docs/timing.md gives the reasons."""

import dataclasses
from dataclasses import dataclass

from bench.errors import unknown_name
from bench.timing.passes import STREAM_DEPTH, Region
from results.record import Precision
from results.timing_record import Mode, ProtocolName


@dataclass(frozen=True)
class TimingProtocol:
    """The rules of one protocol on one kind of device.

    Attributes:
        name: As records and options have it.
        batches: Images per pass: rows are made of each.
        precision: Of the networks.
        input_dtype: Of the images handed over, such as ``float16``.
        region: From where to where a pass goes.
        pinned: Whether images lie in pinned memory.
        non_blocking: Whether the host goes on while they are transferred.
        warm_up: Passes before the first that counts; at least so many if adaptive.
        passes: That count; at least so many if adaptive.
        adaptive: Go on until the medians stand still, and until they are known well enough.
        processes: Fresh processes per row.
        mode: Of all rows that no production line is asked for.
    """

    name: ProtocolName
    batches: tuple[int, ...]
    precision: Precision
    input_dtype: str
    region: Region
    pinned: bool
    non_blocking: bool
    warm_up: int = 1000
    passes: int = 1000
    adaptive: bool = False
    processes: int = 5
    mode: Mode = "request"

    def on(self, device: str) -> "TimingProtocol":
        """The protocol as far as a device can keep it.

        A CPU has no transfer, only emulates float16, and gains nothing by batches: its throughput is what its latency
        says.
        """
        if device != "cpu":
            return self
        dtype = self.input_dtype if self.input_dtype == "uint8" else "float32"
        return dataclasses.replace(
            self,
            batches=(1,),
            precision="fp32",
            input_dtype=dtype,
            region="host to device",
            pinned=False,
            non_blocking=False,
        )

    def in_mode(self, mode: Mode, device: str) -> "TimingProtocol":
        """The protocol with passes that overlap (``stream``) or that begin on the device (``device``).

        Overlapping passes are counted, and how long one takes is not what is to be known.
        """
        if mode == "stream":
            pinned = device != "cpu"
            return dataclasses.replace(self, mode=mode, adaptive=False, pinned=pinned, non_blocking=pinned)
        if mode == "device":
            return dataclasses.replace(self, mode=mode, region="on device", pinned=False, non_blocking=False)
        return dataclasses.replace(self, mode=mode)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Batzner et al., WACV 2024, Appendix E.
        TimingProtocol("paper", (1, 16), "fp16", "float16", "host to device", pinned=False, non_blocking=False),
        TimingProtocol(
            "rigorous", (1, 16), "fp16", "uint8", "host to device", pinned=True, non_blocking=True, adaptive=True
        ),
        # The runtime script of MVTec AD 2's owners.
        TimingProtocol("mvtec_ad2", (1,), "fp32", "float32", "host to host", pinned=False, non_blocking=False),
    )
}


def timing_protocol(name: str) -> TimingProtocol:
    """The protocol of a name.

    Raises:
        UsageError: There is none.
    """
    for known, protocol in PROTOCOLS.items():
        if known == name:
            return protocol
    raise unknown_name("timing protocol", name, PROTOCOLS)


def describe_region(region: Region, device: str, mode: Mode = "request") -> str:
    """What is timed, in words."""
    if device == "cpu":
        words = "from images in memory to maps and scores in memory, no transfer"
        return f"{words}, back to back" if mode == "stream" else words
    words = {
        "host to device": "from images in host memory to maps and scores on the device",
        "host to host": "from images in host memory to maps and scores in host memory",
        "on device": "replay of a CUDA graph, from images on the device to maps and scores on it",
    }[region]
    return f"{words}, {STREAM_DEPTH} passes under way at once" if mode == "stream" else words
