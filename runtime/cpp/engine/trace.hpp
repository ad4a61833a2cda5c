// The values of a step as they were when they were computed; see `Engine::trace_to`.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "engine/device.hpp"
#include "engine/tensor.hpp"

namespace qwen3 {

// A value on the host, row-major, widened to float32.
struct TracedValue {
  std::string name;
  std::vector<size_t> shape;
  std::vector<float> elements;
};

// Collects values in the order they come. Values share buffers and are written in place, so each is
// copied at once.
class Trace {
 public:
  // Keeps the values of these names; all of them if there are none.
  explicit Trace(std::set<std::string> wanted) : wanted_(std::move(wanted)) {}

  // Keeps a whole value; one that is computed again, as it is then.
  void record(const Device& device, const std::string& name, const Tensor& value);
  // Keeps rows [first_row, first_row + value.shape[0]) of a value that is computed part by part, in
  // ascending order.
  void record_rows(const Device& device, const std::string& name, size_t first_row,
                   const Tensor& value);

  std::vector<TracedValue>& values() { return values_; }

 private:
  bool is_wanted(const std::string& name) const {
    return wanted_.empty() || wanted_.count(name) > 0;
  }
  TracedValue& entry(const std::string& name);

  const std::set<std::string> wanted_;
  std::vector<TracedValue> values_;
};

}  // namespace qwen3
