// From element types at run time to C++ types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "half.hpp"
#include "infinicore.h"

namespace qwen3::infinicore {

// Names an element type of the kernels: tag.type.
template <typename T>
struct TypeTag {
  using type = T;
};

template <typename Tag>
using TypeOf = typename Tag::type;

// Creation has checked the type, so another one is our own mistake.
[[noreturn]] inline void unexpected_dtype() {
  throw std::logic_error("an element type passed the checks but has no kernel");
}

// Calls body(TypeTag<T>()) for F32, BF16 and F16.
template <typename Body>
auto with_float_type(infiniDtype_t dtype, const Body& body) {
  switch (dtype) {
    case INFINI_DTYPE_F32:
      return body(TypeTag<float>());
    case INFINI_DTYPE_BF16:
      return body(TypeTag<kernels::Bf16>());
    case INFINI_DTYPE_F16:
      return body(TypeTag<kernels::F16>());
    default:
      unexpected_dtype();
  }
}

// As with_float_type, and F64.
template <typename Body>
auto with_real_type(infiniDtype_t dtype, const Body& body) {
  return dtype == INFINI_DTYPE_F64 ? body(TypeTag<double>()) : with_float_type(dtype, body);
}

// Calls body(TypeTag<T>()) for the integers of 8 to 64 bits.
template <typename Body>
auto with_integer_type(infiniDtype_t dtype, const Body& body) {
  switch (dtype) {
    case INFINI_DTYPE_I8:
      return body(TypeTag<std::int8_t>());
    case INFINI_DTYPE_I16:
      return body(TypeTag<std::int16_t>());
    case INFINI_DTYPE_I32:
      return body(TypeTag<std::int32_t>());
    case INFINI_DTYPE_I64:
      return body(TypeTag<std::int64_t>());
    case INFINI_DTYPE_U8:
      return body(TypeTag<std::uint8_t>());
    case INFINI_DTYPE_U16:
      return body(TypeTag<std::uint16_t>());
    case INFINI_DTYPE_U32:
      return body(TypeTag<std::uint32_t>());
    case INFINI_DTYPE_U64:
      return body(TypeTag<std::uint64_t>());
    default:
      unexpected_dtype();
  }
}

// `count` integers of any type; unsigned ones of 64 bits wrap around.
inline std::vector<std::int64_t> read_integers(infiniDtype_t dtype, const void* data,
                                               std::size_t count) {
  return with_integer_type(dtype, [&](auto tag) {
    const auto* source = static_cast<const TypeOf<decltype(tag)>*>(data);
    std::vector<std::int64_t> values(count);
    for (std::size_t i = 0; i < count; ++i) {
      values[i] = static_cast<std::int64_t>(source[i]);
    }
    return values;
  });
}

}  // namespace qwen3::infinicore
