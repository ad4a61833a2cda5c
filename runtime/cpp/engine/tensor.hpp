// A strided view of device memory: what an InfiniCore tensor descriptor describes, plus the
// pointer.
#pragma once

#include <infinicore.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace qwen3 {

size_t element_size(infiniDtype_t dtype);

// Views never own memory and never copy; every method returns another view of the same storage.
// Strides are in elements. The rank is at most kMaxRank.
struct Tensor {
  static constexpr size_t kMaxRank = 5;

  std::byte* data = nullptr;
  infiniDtype_t dtype = INFINI_DTYPE_INVALID;
  size_t rank = 0;
  std::array<size_t, kMaxRank> shape{};
  std::array<ptrdiff_t, kMaxRank> strides{};

  // Row-major contiguous tensor at `data`.
  static Tensor contiguous(void* data, infiniDtype_t dtype, std::initializer_list<size_t> shape);

  size_t num_elements() const;
  size_t num_bytes() const { return num_elements() * element_size(dtype); }

  // The same storage read as a contiguous tensor of another shape with at most as many elements.
  // Only for tensors that are contiguous themselves, such as whole buffers.
  Tensor shaped(std::initializer_list<size_t> shape) const;
  // Elements [start, start + count) of one axis.
  Tensor slice(size_t axis, size_t start, size_t count) const;
  Tensor rows(size_t start, size_t count) const { return slice(0, start, count); }
  // Elements [start, start + count) of the last axis.
  Tensor columns(size_t start, size_t count) const { return slice(rank - 1, start, count); }
  // [.., outer * inner, ..] read as [.., outer, inner, ..].
  Tensor unflatten(size_t axis, size_t outer, size_t inner) const;
  // [.., a, b, ..] read as [.., a * b, ..]; the two axes must be mergeable.
  Tensor flatten(size_t axis) const;
  // Axis `i` of the result is axis `order[i]` of this tensor.
  Tensor permute(std::initializer_list<size_t> order) const;
  // The last two axes exchanged.
  Tensor transposed() const;
  // A new axis of `count` repetitions (stride 0) in front of `axis`.
  Tensor repeated(size_t axis, size_t count) const;
  // Drops an axis by choosing one index of it.
  Tensor at(size_t axis, size_t index) const;
};

}  // namespace qwen3
