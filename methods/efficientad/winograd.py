"""Convolutions of 3x3 and 4x4 kernels on a CPU in a quarter to a fifth of the multiplications.

Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016): tiles of
the maps and the kernels are transformed such that a convolution becomes, at each of the transformed tile's positions,
a product of two matrices. The same numbers as a direct convolution up to rounding, forward and backward. oneDNN, which
runs PyTorch's convolutions on a CPU, has only the direct algorithm.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn

Array = npt.NDArray[np.floating[Any]]
Rows = tuple[tuple[np.float32, ...], ...]

OUTPUTS = 4
"""Side of the square of outputs that one tile yields."""
POINTS = {3: (0.0, 1.0, -1.0, -2.0, 0.5), 4: (0.0, 1.0, -1.0, -2.0, -0.5, 1.5)}
"""Per side of the kernel, the numbers at which polynomials are evaluated, besides infinity. Of the small fractions,
those with the least rounding error in outputs and gradients; about four times that of a direct convolution."""
LEAST_CHANNELS = 128
"""With fewer channels in or out the transforms cost what the products save."""


def conv2d(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as ``F.conv2d(maps, weight, bias)`` does, faster where this module can.

    That is on a CPU in float32, outside autocast, for kernels of 3x3 and 4x4, many channels, and a bias.

    Args:
        maps: (B, C, H, W); fastest in memory format channels_last, which the result has.
        weight: (K, C, r, r).
        bias: (K,), or ``None``.

    Returns:
        (B, K, H - r + 1, W - r + 1).
    """
    if bias is not None and _saves(maps, weight):
        keep_tiles = torch.is_grad_enabled() and weight.requires_grad
        return _Convolution.apply(maps, weight, bias, keep_tiles)  # type: ignore[no-any-return,no-untyped-call]
    return F.conv2d(maps, weight, bias)


class InferenceConv2d(nn.Conv2d):
    """A convolution whose kernels are transformed once; where this module can do nothing, the one it is made of.

    Nor does it where the network is compiled, exported or profiled: other runtimes have algorithms of their own, and
    operations are counted of what is computed, however it is.

    Args:
        layer: With weights that will not change; without padding, stride, groups.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel_size, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = layer.weight, layer.bias
        self._kernels: Tensor | None = None
        self.eval()

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps (B, C, H, W) to (B, K, H - r + 1, W - r + 1)."""
        watched = (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
            or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
        )
        if watched or self.bias is None or not _saves(maps, self.weight):
            return super().forward(maps)
        matrices = transforms(self.kernel_size[0])
        if self._kernels is None:
            self._kernels = _transform_kernels(self.weight, matrices)
        return _convolve(maps, self._kernels, self.bias, matrices)


def take_fewer_multiplications(module: nn.Module) -> None:
    """Replace the convolutions of a fitted network, in place, by such as decide by themselves whether they can save.

    The network keeps its parameters and the keys of its ``state_dict``.
    """
    for name, layer in module.named_children():
        if isinstance(layer, nn.Conv2d):
            if (layer.stride, layer.padding, layer.groups) == ((1, 1), (0, 0), 1):
                setattr(module, name, InferenceConv2d(layer))
        else:
            take_fewer_multiplications(layer)


def _saves(maps: Tensor, weight: Tensor) -> bool:
    """Whether a convolution has what it takes to be faster by this algorithm."""
    side = weight.shape[2]
    return (
        maps.device.type == "cpu"
        and maps.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and side in POINTS
        and side == weight.shape[3]
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and min(maps.shape[2:]) >= side
    )


@dataclass(frozen=True)
class Transforms:
    """Matrices of a one-dimensional filter of r taps on a tile of n = 4 + r - 1 numbers, 4 of which come out.

    The outputs are ``inverse @ ((kernel @ taps) * (data @ tile))``; in two dimensions each matrix is applied to rows
    and to columns.

    Attributes:
        data: (n, n); B^T of Lavin and Gray.
        kernel: (n, r); their G.
        inverse: (4, n); their A^T.
    """

    data: Array
    kernel: Array
    inverse: Array


@functools.cache
def transforms(taps: int) -> Transforms:
    """Construct the matrices for 3 or 4 taps, float64 (Toom and Cook's interpolation at ``POINTS``).

    A product of polynomials of degrees 3 and r - 1 is known from its values at n points, one of them infinity, where
    the value is the leading coefficient. A filter is the transpose of such a product.
    """
    points = np.array(POINTS[taps])
    others = [np.delete(points, index) for index in range(len(points))]
    # Coefficients, lowest first, of the polynomials that vanish at all other points and at all points.
    vanishing = [np.append(np.poly(roots)[::-1], 0) for roots in others]
    scales = [np.prod(point - roots) for point, roots in zip(points, others, strict=True)]

    def values(count: int) -> Array:
        """Of the powers of x below ``count``, at all points."""
        return np.vstack([np.vander(points, count, increasing=True), np.eye(count)[-1]])

    return Transforms(
        data=np.array([*vanishing, np.poly(points)[::-1]]),
        kernel=values(taps) / np.append(scales, 1)[:, None],
        inverse=values(OUTPUTS).T,
    )


class _Convolution(torch.autograd.Function):
    """The convolution with Winograd's algorithm and its derivatives, which are the transposed algorithm.

    Tiles lie in arrays (n, n, tile rows, tile columns, channels), so that the product at each of the n x n positions
    is one of matrices (tiles, C) and (C, K). Images come one after another: their tiles stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, keep_tiles: bool) -> Tensor:
        batch, channels, height, width = maps.shape
        side = weight.shape[2]
        matrices = transforms(side)
        kernels = _transform_kernels(weight, matrices)
        tiles = None
        if keep_tiles:
            tiles = torch.empty(batch, *_tiles_shape(height - side + 1, width - side + 1, side), channels)
        result = _convolve(maps, kernels, bias, matrices, tiles)
        ctx.save_for_backward(tiles, kernels)
        ctx.sizes = (side, height, width)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        tiles, kernels = ctx.saved_tensors
        side, height, width = ctx.sizes
        for_maps, for_weight, for_bias, _ = ctx.needs_input_grad
        batch, out_channels, rows, columns = gradient.shape
        channels = kernels.shape[2]
        matrices = transforms(side)
        shape = _tiles_shape(rows, columns, side)
        of_products = torch.empty(*shape, out_channels)
        of_tiles = torch.empty(*shape, channels)
        of_maps = torch.empty(batch, channels, height, width, memory_format=torch.channels_last).zero_()
        of_kernels = torch.zeros(kernels.shape)
        for image in range(batch):
            _to_tiles(gradient[image], matrices.inverse.T, of_products)
            if for_weight:
                of_kernels.baddbmm_(_flat(of_products).transpose(1, 2), _flat(tiles[image]))
            if for_maps:
                torch.bmm(_flat(of_products), kernels, out=_flat(of_tiles))
                _add_tiles(of_tiles, matrices.data.T, of_maps[image])
        return (
            of_maps if for_maps else None,
            _kernel_gradient(of_kernels, matrices) if for_weight else None,
            gradient.sum((0, 2, 3)) if for_bias else None,
            None,
        )


def _convolve(maps: Tensor, kernels: Tensor, bias: Tensor, matrices: Transforms, tiles: Tensor | None = None) -> Tensor:
    """Convolve maps (B, C, H, W) with transformed kernels (n * n, K, C); keep the maps' tiles where there is room."""
    batch, channels, height, width = maps.shape
    side = matrices.kernel.shape[1]
    rows, columns = height - side + 1, width - side + 1
    shape = _tiles_shape(rows, columns, side)
    room = torch.empty(1, *shape, channels) if tiles is None else tiles
    products = torch.empty(*shape, kernels.shape[1])
    result = torch.empty(batch, kernels.shape[1], rows, columns, memory_format=torch.channels_last)
    result[:] = bias[:, None, None]
    for image in range(batch):
        of_image = room[0 if tiles is None else image]
        _to_tiles(maps[image], matrices.data, of_image)
        torch.bmm(_flat(of_image), kernels.transpose(1, 2), out=_flat(products))
        _add_tiles(products, matrices.inverse, result[image])
    return result


def _tiles_shape(rows: int, columns: int, side: int) -> tuple[int, int, int, int]:
    """Of the tiles that yield ``rows`` x ``columns`` outputs, without the channels."""
    tile = OUTPUTS + side - 1
    return tile, tile, -(-rows // OUTPUTS), -(-columns // OUTPUTS)


def _flat(tiles: Tensor) -> Tensor:
    """View tiles (n, n, rows, columns, C) as a batch of matrices (n * n, rows * columns, C)."""
    return tiles.flatten(2, 3).flatten(0, 1)


def _both_axes(matrices: Transforms) -> Tensor:
    """The kernels' transform of rows and columns at once, (n * n, r * r)."""
    return torch.from_numpy(np.kron(matrices.kernel, matrices.kernel)).float()


def _transform_kernels(weight: Tensor, matrices: Transforms) -> Tensor:
    """Transform kernels (K, C, r, r) to (n * n, K, C)."""
    out_channels, channels = weight.shape[:2]
    taps = weight.detach().permute(2, 3, 0, 1).reshape(-1, out_channels * channels)
    return (_both_axes(matrices) @ taps).view(-1, out_channels, channels)


def _kernel_gradient(of_kernels: Tensor, matrices: Transforms) -> Tensor:
    """Transform the gradient (n * n, K, C) of transformed kernels to that of the kernels, (K, C, r, r)."""
    side = matrices.kernel.shape[1]
    of_taps = (_both_axes(matrices).T @ of_kernels.flatten(1)).view(side, side, *of_kernels.shape[1:])
    return of_taps.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def _to_tiles(maps: Tensor, matrix: Array, tiles: Tensor) -> None:
    """Cut maps (C, H, W) into tiles, one every ``OUTPUTS`` rows and columns, and transform them.

    Beyond the maps there are zeros.
    """
    lines = maps.permute(1, 2, 0).contiguous()
    _in_bands(_write_tiles, tiles.shape[2], lines.numpy(), _rows(matrix), tiles.numpy())


def _add_tiles(tiles: Tensor, matrix: Array, maps: Tensor) -> None:
    """Transform tiles and add them to float32 maps (C, H, W) in memory format channels_last.

    What lies beyond the maps is dropped.
    """
    _in_bands(_read_tiles, tiles.shape[2], tiles.numpy(), _rows(matrix), maps.permute(1, 2, 0).numpy())


def _rows(matrix: Array) -> Rows:
    """As the compiled loops take a matrix: lengths of tuples are known to the compiler, which unrolls their loops."""
    return tuple(tuple(np.float32(number) for number in row) for row in matrix)


def _in_bands(loop: Callable[..., None], tile_rows: int, *arguments: object) -> None:
    """Run a compiled loop over all tile rows in as many threads as PyTorch uses.

    A tile overlaps with its neighbours only, so of the bands of tile rows the even ones can run at the same time, and
    then the odd ones.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        loop(*arguments, 0, tile_rows)
        return
    count = min(2 * threads, tile_rows)
    bands = [(tile_rows * band // count, tile_rows * (band + 1) // count) for band in range(count)]
    for turn in (bands[::2], bands[1::2]):
        list(_threads(threads).map(lambda band: loop(*arguments, *band), turn))


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "winograd")


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    options = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package folder nor the user's cache folder can be written
        return njit(**options)(function)  # type: ignore[no-any-return]


@_compile
def _write_tiles(maps: Array, matrix: Rows, tiles: Array, first: int, last: int) -> None:
    """Set tiles[a, b, u, v] to the sum over i, j of matrix[a][i] matrix[b][j] maps[4 u + i, 4 v + j]."""
    size, taps = len(matrix), len(matrix[0])
    height, width, channels = maps.shape
    columns = tiles.shape[3]
    line = np.zeros((OUTPUTS * (columns - 1) + taps, channels), np.float32)
    for row in range(first, last):
        present = min(taps, height - OUTPUTS * row)
        for a in range(size):
            factors = matrix[a]
            if present == taps:
                for x in range(width):
                    for channel in range(channels):
                        total = factors[0] * maps[OUTPUTS * row, x, channel]
                        for i in range(1, taps):
                            total += factors[i] * maps[OUTPUTS * row + i, x, channel]
                        line[x, channel] = total
            else:
                line[:] = 0
                for i in range(present):
                    for x in range(width):
                        for channel in range(channels):
                            line[x, channel] += factors[i] * maps[OUTPUTS * row + i, x, channel]
            for column in range(columns):
                for b in range(size):
                    factors = matrix[b]
                    for channel in range(channels):
                        total = factors[0] * line[OUTPUTS * column, channel]
                        for j in range(1, taps):
                            total += factors[j] * line[OUTPUTS * column + j, channel]
                        tiles[a, b, row, column, channel] = total


@_compile
def _read_tiles(tiles: Array, matrix: Rows, maps: Array, first: int, last: int) -> None:
    """Add to maps[4 u + i, 4 v + j] the sum over a, b of matrix[i][a] matrix[j][b] tiles[a, b, u, v]."""
    taps, size = len(matrix), len(matrix[0])
    height, width, channels = maps.shape
    columns = tiles.shape[3]
    lines = np.empty((size, OUTPUTS * (columns - 1) + taps, channels), maps.dtype)
    for row in range(first, last):
        lines[:] = 0
        for a in range(size):
            for column in range(columns):
                for j in range(taps):
                    factors = matrix[j]
                    for channel in range(channels):
                        total = factors[0] * tiles[a, 0, row, column, channel]
                        for b in range(1, size):
                            total += factors[b] * tiles[a, b, row, column, channel]
                        lines[a, OUTPUTS * column + j, channel] += total
        for i in range(min(taps, height - OUTPUTS * row)):
            factors = matrix[i]
            for x in range(width):
                for channel in range(channels):
                    total = factors[0] * lines[0, x, channel]
                    for a in range(1, size):
                        total += factors[a] * lines[a, x, channel]
                    maps[OUTPUTS * row + i, x, channel] += total
