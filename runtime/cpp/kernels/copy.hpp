// Strided copies of elements of any size.
#pragma once

#include <cstddef>
#include <cstring>

#include "parallel.hpp"
#include "strided.hpp"

namespace qwen3::kernels {

namespace copy_detail {

template <std::size_t Size>
void copy_run(unsigned char* target, std::ptrdiff_t target_stride, const unsigned char* source,
              std::ptrdiff_t source_stride, std::size_t count) {
  if (target_stride == 1 && source_stride == 1) {
    std::memcpy(target, source, count * Size);
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(target, source, Size);
    target += target_stride * static_cast<std::ptrdiff_t>(Size);
    source += source_stride * static_cast<std::ptrdiff_t>(Size);
  }
}

}  // namespace copy_detail

// Copies element by element; the tensors must not overlap.
//
// Args:
//   loop: Strides of the target and of the source.
template <std::size_t Size>
void strided_copy(const StridedLoop<2>& loop, void* target, const void* source) {
  constexpr std::size_t kThreadBytes = 65536;
  const auto strides = loop.run_strides();
  auto* to = static_cast<unsigned char*>(target);
  const auto* from = static_cast<const unsigned char*>(source);
  const std::size_t grain = kThreadBytes / (loop.run_length() * Size + 1) + 1;
  parallel_for(loop.num_runs(), grain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t run = begin; run < end; ++run) {
      const auto offsets = loop.run(run);
      copy_detail::copy_run<Size>(to + offsets[0] * static_cast<std::ptrdiff_t>(Size), strides[0],
                                  from + offsets[1] * static_cast<std::ptrdiff_t>(Size), strides[1],
                                  loop.run_length());
    }
  });
}

}  // namespace qwen3::kernels
