// A device as InfiniCore sees it: thread-local activation, one stream, one handle, owned memory.
#pragma once

#include <infiniop.h>
#include <infinirt.h>

#include <cstddef>
#include <string>

#include "engine/tensor.hpp"

namespace qwen3 {

// Which device an engine was generated for, and whether the embedded library stands in for it.
struct DeviceTarget {
  infiniDevice_t type;
  const char* name;
  bool emulated;
};

// InfiniCore keeps the current device per thread, so every entry into an engine activates it anew.
class Device {
 public:
  Device(const DeviceTarget& target, int id);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  void activate() const;
  // For destructors: a device that cannot be activated any more has no memory to give back.
  bool try_activate() const noexcept;
  void synchronize() const;
  infiniopHandle_t handle() const { return handle_; }
  infinirtStream_t stream() const { return stream_; }

  // Queued on the stream; the host memory must stay valid until `synchronize`.
  void copy_to_device(void* device, const void* host, size_t num_bytes) const;
  void copy_to_host(void* host, const void* device, size_t num_bytes) const;
  void copy_on_device(void* destination, const void* source, size_t num_bytes) const;

 private:
  infiniDevice_t type_;
  int id_;
  infinirtStream_t stream_ = nullptr;
  infiniopHandle_t handle_ = nullptr;
};

// Device memory with one owner.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Zero-filled: operators of some releases read their output (gemm with beta 0), and whatever they
  // read must be finite.
  DeviceMemory(const Device& device, size_t num_bytes);
  // For memory that is written before it is read; its pages are not touched here.
  static DeviceMemory uninitialised(const Device& device, size_t num_bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  void* get() const { return pointer_; }
  size_t num_bytes() const { return num_bytes_; }

 private:
  const Device* device_ = nullptr;
  void* pointer_ = nullptr;
  size_t num_bytes_ = 0;
};

}  // namespace qwen3
