#include "engine/trace.hpp"

#include <algorithm>
#include <cstring>

#include "engine/check.hpp"
#include "engine/engine.hpp"
#include "kernels/half.hpp"
#include "kernels/strided.hpp"

namespace qwen3 {
namespace {

using kernels::StridedLoop;

// Appends a view of `bytes` in row-major order.
template <class Element>
void append_floats(const std::vector<std::byte>& bytes, const StridedLoop<1>& loop,
                   std::vector<float>& elements) {
  const auto* source = reinterpret_cast<const Element*>(bytes.data());
  for (size_t run = 0; run < loop.num_runs(); ++run) {
    const ptrdiff_t start = loop.run(run)[0], stride = loop.run_strides()[0];
    for (size_t i = 0; i < loop.run_length(); ++i) {
      elements.push_back(kernels::to_float(source[start + static_cast<ptrdiff_t>(i) * stride]));
    }
  }
}

// Brings a view to the host, with what lies between its elements, in one copy.
std::vector<std::byte> bytes_of(const Device& device, const Tensor& value) {
  ptrdiff_t last = 0;
  for (size_t axis = 0; axis < value.rank; ++axis) {
    last += static_cast<ptrdiff_t>(value.shape[axis] - 1) * value.strides[axis];
  }
  std::vector<std::byte> bytes(static_cast<size_t>(last + 1) * element_size(value.dtype));
  device.copy_to_host(bytes.data(), value.data, bytes.size());
  device.synchronize();
  return bytes;
}

void append(const Device& device, const Tensor& value, std::vector<float>& elements) {
  if (value.num_elements() == 0) return;
  const std::vector<std::byte> bytes = bytes_of(device, value);
  const StridedLoop<1> loop({value.shape.begin(), value.shape.begin() + value.rank},
                            {{{value.strides.begin(), value.strides.begin() + value.rank}}});
  elements.reserve(elements.size() + loop.size());
  switch (value.dtype) {
    case INFINI_DTYPE_F32:
      return append_floats<float>(bytes, loop, elements);
    case INFINI_DTYPE_BF16:
      return append_floats<kernels::Bf16>(bytes, loop, elements);
    case INFINI_DTYPE_F16:
      return append_floats<kernels::F16>(bytes, loop, elements);
    default:
      throw EngineFailure("a traced value of an element type that has no float32");
  }
}

std::string name_in(size_t layer, const char* name) {
  return "layers." + std::to_string(layer) + "." + name;
}

}  // namespace

TracedValue& Trace::entry(const std::string& name) {
  const auto found = std::find_if(values_.begin(), values_.end(),
                                  [&](const TracedValue& value) { return value.name == name; });
  return found != values_.end() ? *found : values_.emplace_back(TracedValue{name, {}, {}});
}

void Trace::record(const Device& device, const std::string& name, const Tensor& value) {
  if (!is_wanted(name)) return;
  TracedValue& kept = entry(name);
  kept.shape.assign(value.shape.begin(), value.shape.begin() + value.rank);
  kept.elements.clear();
  append(device, value, kept.elements);
}

void Trace::record_rows(const Device& device, const std::string& name, size_t first_row,
                        const Tensor& value) {
  if (first_row == 0) return record(device, name, value);
  if (!is_wanted(name)) return;
  TracedValue& kept = entry(name);
  require(!kept.shape.empty() && kept.shape[0] == first_row, "a part of a traced value is missing");
  kept.shape[0] += value.shape[0];
  append(device, value, kept.elements);
}

void Engine::trace(const char* name, const Tensor& value) const {
  if (trace_ != nullptr) trace_->record(device(), name, value);
}

void Engine::trace(size_t layer, const char* name, const Tensor& value) const {
  if (trace_ == nullptr) return;
  trace_->record(device(), name_in(layer, name), value);
}

void Engine::trace_rows(size_t first_row, const char* name, const Tensor& value) const {
  if (trace_ != nullptr) trace_->record_rows(device(), name, first_row, value);
}

void Engine::trace_rows(size_t layer, size_t first_row, const char* name,
                        const Tensor& value) const {
  if (trace_ != nullptr) trace_->record_rows(device(), name_in(layer, name), first_row, value);
}

}  // namespace qwen3
