// Walking over tensors of one shape and different strides.
#pragma once

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

namespace qwen3::kernels {

// The common shape of `Count` tensors with dimensions of 1 dropped and neighbours merged where
// every tensor allows it. Strides count elements. Without dimensions it is one element.
template <std::size_t Count>
class StridedLoop {
 public:
  using Strides = std::array<std::ptrdiff_t, Count>;

  StridedLoop() = default;

  StridedLoop(const std::vector<std::size_t>& shape,
              const std::array<std::vector<std::ptrdiff_t>, Count>& strides) {
    for (std::size_t i = 0; i < shape.size(); ++i) {
      Strides own;
      for (std::size_t t = 0; t < Count; ++t) {
        own[t] = strides[t][i];
      }
      add(shape[i], own);
    }
    for (const auto& [length, unused] : dims_) {
      size_ *= length;
    }
  }

  // Elements in all.
  std::size_t size() const { return size_; }
  // Elements in a run: the innermost dimension.
  std::size_t run_length() const { return dims_.empty() ? 1 : dims_.back().first; }
  std::size_t num_runs() const { return size_ == 0 ? 0 : size_ / run_length(); }
  Strides run_strides() const { return dims_.empty() ? Strides{} : dims_.back().second; }

  // Where each tensor's element `index` is, counted in row-major order.
  Strides element(std::size_t index) const {
    Strides result{};
    for (std::size_t i = dims_.size(); i-- > 0;) {
      const auto& [length, strides] = dims_[i];
      const auto along = static_cast<std::ptrdiff_t>(index % length);
      index /= length;
      for (std::size_t t = 0; t < Count; ++t) {
        result[t] += along * strides[t];
      }
    }
    return result;
  }
  // Where each tensor's part of a run starts.
  Strides run(std::size_t index) const { return element(index * run_length()); }

 private:
  void add(std::size_t length, const Strides& strides) {
    if (length == 1) {
      return;
    }
    if (!dims_.empty()) {
      auto& [outer, outer_strides] = dims_.back();
      bool mergeable = true;
      for (std::size_t t = 0; t < Count; ++t) {
        mergeable &= outer_strides[t] == strides[t] * static_cast<std::ptrdiff_t>(length);
      }
      if (mergeable) {
        outer *= length;
        outer_strides = strides;
        return;
      }
    }
    dims_.emplace_back(length, strides);
  }

  std::vector<std::pair<std::size_t, Strides>> dims_;
  std::size_t size_ = 1;
};

}  // namespace qwen3::kernels
