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
  // Returns room for `count` numbers. Throws std::bad_alloc.
  template <typename T = float>
  T* reserve(std::size_t count) {
    if (count * sizeof(T) > capacity_) {
      data_.reset();
      capacity_ = 0;
      const std::size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
      data_.reset(std::aligned_alloc(kAlignment, bytes));
      if (!data_) {
        throw std::bad_alloc();
      }
      capacity_ = bytes;
    }
    return static_cast<T*>(data_.get());
  }

 private:
  static constexpr std::size_t kAlignment = 64;

  struct Release {
    void operator()(void* pointer) const { std::free(pointer); }
  };

  std::unique_ptr<void, Release> data_;
  std::size_t capacity_ = 0;  // in bytes
};

}  // namespace qwen3::kernels
