#include "engine/device.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "engine/check.hpp"
#ifdef QWEN3_EMBEDDED_INFINICORE
#include "qwen3_emulation.h"
#endif

namespace qwen3 {
namespace {

void start_emulation(const DeviceTarget& target, int id) {
#ifdef QWEN3_EMBEDDED_INFINICORE
  check(qwen3_infinicore_emulate(target.type, id + 1), "qwen3_infinicore_emulate");
  std::fprintf(stderr, "note: device '%s' is emulated on the CPU by the embedded InfiniCore\n",
               target.name);
#else
  (void)id;
  throw EngineFailure(std::string("device '") + target.name +
                      "' can be emulated only by the embedded InfiniCore");
#endif
}

}  // namespace

Device::Device(const DeviceTarget& target, int id) : type_(target.type), id_(id) {
  check(infinirtInit(), "infinirtInit");
  if (target.emulated) start_emulation(target, id);
  activate();
  check(infinirtStreamCreate(&stream_), "infinirtStreamCreate");
  const infiniStatus_t status = infiniopCreateHandle(&handle_);
  if (status != INFINI_STATUS_SUCCESS) {
    infinirtStreamDestroy(stream_);
    throw_failure("infiniopCreateHandle", status);
  }
}

Device::~Device() {
  if (!try_activate()) return;
  infiniopDestroyHandle(handle_);
  infinirtStreamDestroy(stream_);
}

void Device::activate() const { check(infinirtSetDevice(type_, id_), "infinirtSetDevice"); }

bool Device::try_activate() const noexcept {
  return infinirtSetDevice(type_, id_) == INFINI_STATUS_SUCCESS;
}

void Device::synchronize() const {
  check(infinirtStreamSynchronize(stream_), "infinirtStreamSynchronize");
}

void Device::copy_to_device(void* device, const void* host, size_t num_bytes) const {
  check(infinirtMemcpyAsync(device, host, num_bytes, INFINIRT_MEMCPY_H2D, stream_),
        "infinirtMemcpyAsync (host to device)");
}

void Device::copy_to_host(void* host, const void* device, size_t num_bytes) const {
  check(infinirtMemcpyAsync(host, device, num_bytes, INFINIRT_MEMCPY_D2H, stream_),
        "infinirtMemcpyAsync (device to host)");
}

void Device::copy_on_device(void* destination, const void* source, size_t num_bytes) const {
  check(infinirtMemcpyAsync(destination, source, num_bytes, INFINIRT_MEMCPY_D2D, stream_),
        "infinirtMemcpyAsync (device to device)");
}

DeviceMemory DeviceMemory::uninitialised(const Device& device, size_t num_bytes) {
  DeviceMemory memory;
  memory.device_ = &device;
  memory.num_bytes_ = num_bytes;
  check(infinirtMalloc(&memory.pointer_, num_bytes), "infinirtMalloc");
  // The CPU backend reports success with a null pointer when memory runs out.
  require_else(memory.pointer_ != nullptr, [&] {
    return "infinirtMalloc: out of device memory at an allocation of " + std::to_string(num_bytes) +
           " bytes";
  });
  return memory;
}

DeviceMemory::DeviceMemory(const Device& device, size_t num_bytes)
    : DeviceMemory(uninitialised(device, num_bytes)) {
  // infinirtMemset is younger than the oldest supported release.
  const std::vector<std::byte> zeros(std::min<size_t>(num_bytes, size_t{1} << 20));
  for (size_t done = 0; done < num_bytes; done += zeros.size()) {
    device.copy_to_device(static_cast<std::byte*>(pointer_) + done, zeros.data(),
                          std::min(zeros.size(), num_bytes - done));
  }
  device.synchronize();
}

DeviceMemory::~DeviceMemory() {
  if (pointer_ != nullptr && device_->try_activate()) infinirtFree(pointer_);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : device_(other.device_),
      pointer_(std::exchange(other.pointer_, nullptr)),
      num_bytes_(std::exchange(other.num_bytes_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(pointer_, other.pointer_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

}  // namespace qwen3
