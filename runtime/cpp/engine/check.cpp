#include "engine/check.hpp"

namespace qwen3 {

const char* status_name(infiniStatus_t status) {
  switch (status) {
    case INFINI_STATUS_SUCCESS:
      return "success";
    case INFINI_STATUS_INTERNAL_ERROR:
      return "internal error";
    case INFINI_STATUS_NOT_IMPLEMENTED:
      return "not implemented";
    case INFINI_STATUS_BAD_PARAM:
      return "bad parameter";
    case INFINI_STATUS_NULL_POINTER:
      return "null pointer";
    case INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED:
      return "device type not supported";
    case INFINI_STATUS_DEVICE_NOT_FOUND:
      return "device not found";
    case INFINI_STATUS_DEVICE_NOT_INITIALIZED:
      return "device not initialized";
    case INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED:
      return "device architecture not supported";
    case INFINI_STATUS_BAD_TENSOR_DTYPE:
      return "bad tensor dtype";
    case INFINI_STATUS_BAD_TENSOR_SHAPE:
      return "bad tensor shape";
    case INFINI_STATUS_BAD_TENSOR_STRIDES:
      return "bad tensor strides";
    case INFINI_STATUS_INSUFFICIENT_WORKSPACE:
      return "insufficient workspace";
    default:
      return "unknown status";
  }
}

void throw_failure(const char* call, infiniStatus_t status) {
  throw EngineFailure(std::string(call) + ": " + status_name(status) + " (status " +
                      std::to_string(static_cast<int>(status)) + ")");
}

}  // namespace qwen3
