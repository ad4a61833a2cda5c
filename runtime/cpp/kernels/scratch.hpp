// Aligned memory that a thread keeps between kernel calls.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace qwen3::kernels {

// A growing buffer on a cache line boundary; contents do not survive a call to reserve().
class Scratch {
 public:
  // Returns room for `count` floats. Throws std::bad_alloc.
  float* reserve(std::size_t count) {
    if (count > capacity_) {
      data_.reset();
      capacity_ = 0;
      const std::size_t bytes = (count * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
      data_.reset(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
      if (!data_) {
        throw std::bad_alloc();
      }
      capacity_ = bytes / sizeof(float);
    }
    return data_.get();
  }

 private:
  static constexpr std::size_t kAlignment = 64;

  struct Release {
    void operator()(float* pointer) const { std::free(pointer); }
  };

  std::unique_ptr<float, Release> data_;
  std::size_t capacity_ = 0;
};

}  // namespace qwen3::kernels
