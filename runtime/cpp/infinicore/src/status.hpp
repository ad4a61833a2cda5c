// Status codes as results, and the one line that says on stderr what was wrong.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>

#include "infinicore.h"

namespace qwen3::infinicore {

inline constexpr infiniStatus_t kSuccess = INFINI_STATUS_SUCCESS;

// Reports a failed check in one line and returns its status.
[[gnu::format(printf, 2, 3)]] inline infiniStatus_t fail(infiniStatus_t status, const char* format,
                                                         ...) {
  char text[256];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "infinicore: %s (status %d)\n", text, static_cast<int>(status));
  return status;
}

inline infiniStatus_t null_argument(const char* function) {
  return fail(INFINI_STATUS_NULL_POINTER, "%s: NULL argument", function);
}

// Runs the body of a C function: no exception leaves the library.
template <typename Body>
infiniStatus_t guarded(const Body& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    return fail(INFINI_STATUS_INTERNAL_ERROR, "%s", error.what());
  } catch (...) {
    return fail(INFINI_STATUS_INTERNAL_ERROR, "unknown error");
  }
}

}  // namespace qwen3::infinicore

// Returns from the enclosing function when a status is not success.
#define QWEN3_TRY(expression)                                         \
  do {                                                                \
    const infiniStatus_t status_of_try = (expression);                \
    if (status_of_try != INFINI_STATUS_SUCCESS) return status_of_try; \
  } while (false)
