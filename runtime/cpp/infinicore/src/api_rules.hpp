// Types of the generated table qwen3_api_table.hpp: what each operator accepts on each device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "infinicore.h"

namespace qwen3::infinicore {

// Which strides a tensor may have; modelspecs/infinicore/README.md describes them.
enum class StrideRule : std::uint8_t {
  kAny,
  kLastOne,
  kContiguous,
  kMatrix,
  kUnique,
  kHeadRows,
  kDense,
};

struct TensorRule {
  const char* name;
  std::uint8_t group;   // tensors of a group share one element type
  std::uint16_t ranks;  // bit r: rank r is allowed
  StrideRule strides;
};

inline constexpr std::size_t kMaxDtypeGroups = 3;

// Bit d of a group's mask: element type number d is allowed.
struct DtypeAlternative {
  std::uint32_t groups[kMaxDtypeGroups];
};

template <typename T>
struct Span {
  const T* data;
  std::size_t size;

  template <std::size_t Size>
  constexpr Span(const T (&array)[Size]) : data(array), size(Size) {}  // NOLINT: a view

  constexpr const T* begin() const { return data; }
  constexpr const T* end() const { return data + size; }
  constexpr const T& operator[](std::size_t index) const { return data[index]; }
};

struct DeviceRule {
  infiniDevice_t device;
  Span<TensorRule> tensors;
  Span<DtypeAlternative> dtypes;
};

struct OperatorRules {
  const char* name;
  bool has_workspace;
  Span<DeviceRule> devices;
};

// A function of infinirt that does nothing on a device but return a status.
struct Refusal {
  const char* function;
  infiniDevice_t device;
  infiniStatus_t status;
};

struct NamedDevice {
  infiniDevice_t type;
  const char* name;
};

}  // namespace qwen3::infinicore
