// Running engines for a device without that device.
//
// The embedded InfiniCore answers to CPU. After qwen3_infinicore_emulate() it also answers to
// another device type of its API release, computing on the CPU, but with that device's operators,
// element types and layouts and nothing more. Memory of an emulated device cannot be read or
// written by the host: its addresses are tagged so that using one directly faults, and every
// library call checks that it got device memory where the real device would need it.
#pragma once

#include "infinicore.h"

#ifdef __cplusplus
extern "C" {
#endif

// Lets `device` answer with `count` instances; 0 turns it off again. Affects the whole process part
// that shares this copy of the library.
//
// Returns BAD_PARAM for CPU or a negative count, DEVICE_TYPE_NOT_SUPPORTED for a device type that
// the release does not have, NOT_IMPLEMENTED where addresses have no room for a tag.
__export infiniStatus_t qwen3_infinicore_emulate(infiniDevice_t device, int count);

// Bytes of live memory on all emulated devices.
__export size_t qwen3_infinicore_emulated_bytes(void);

#ifdef __cplusplus
}
#endif
