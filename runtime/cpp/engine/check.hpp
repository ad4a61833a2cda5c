// Turns infiniStatus_t into exceptions that name the failing call.
#pragma once

#include <infinicore.h>

#include <stdexcept>
#include <string>

namespace qwen3 {

// A call into InfiniCore, or a batch handed to an engine, failed.
class EngineFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

const char* status_name(infiniStatus_t status);

[[noreturn]] void throw_failure(const char* call, infiniStatus_t status);

inline void check(infiniStatus_t status, const char* call) {
  if (status != INFINI_STATUS_SUCCESS) throw_failure(call, status);
}

// For what a caller of the engine can get wrong; `message` says what was expected.
inline void require(bool condition, const char* message) {
  if (!condition) throw EngineFailure(message);
}

// The same for messages that are put together, which costs only when it fails: `message()`.
template <class Message>
void require_else(bool condition, Message message) {
  if (!condition) throw EngineFailure(message());
}

}  // namespace qwen3
