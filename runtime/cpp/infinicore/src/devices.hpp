// The calling thread's device, the emulated devices and their memory.
//
// infinirt owns this; infiniop asks it which addresses it may touch. Functions that cross between
// the two shared libraries carry __export.
#pragma once

#include <cstddef>

#include "infinicore.h"
#include "tensor.hpp"

namespace qwen3::infinicore {

struct DeviceId {
  infiniDevice_t type = INFINI_DEVICE_CPU;
  int index = 0;

  bool operator==(const DeviceId& other) const {
    return type == other.type && index == other.index;
  }
};

// Name of a device type of this release, or nullptr.
__export const char* device_name(infiniDevice_t type);

// Number of instances: 1 for CPU, what qwen3_infinicore_emulate() said for others.
__export int device_count(infiniDevice_t type);

__export DeviceId current_device();

// What a function of infinirt returns on a device without doing anything: that there is no such
// device, or what the API table says. SUCCESS means that it is to do its work.
infiniStatus_t refusal(const char* function, infiniDevice_t type);

// Turns a data pointer of a call into an address this process can use.
//
// For CPU that is the pointer. For an emulated device it must point into one live allocation of
// that device that holds the whole extent.
//
// Returns NULL_POINTER or BAD_PARAM (with a line on stderr naming `what`).
__export infiniStatus_t resolve(const DeviceId& device, const void* pointer, const Extent& extent,
                                const char* what, void** address);

// Whether a stream handle belongs to the device; NULL, the default stream, always does.
__export bool is_stream_of(const DeviceId& device, const void* stream);

}  // namespace qwen3::infinicore
