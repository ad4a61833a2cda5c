#include "device_memory.hpp"

#include <cstdlib>
#include <limits>

#include "status.hpp"

namespace qwen3::infinicore {

namespace {

constexpr bool kHasTags = sizeof(std::uintptr_t) == 8;
constexpr int kTagShift = 48;
// Bit 62 makes an x86-64 address non-canonical, bit 55 an ARM64 address one of the kernel's.
constexpr std::uint64_t kTag = 0x4080;
constexpr std::uint64_t kDeviceMask = 0xf;
constexpr std::uint64_t kAddressMask = (std::uint64_t{1} << kTagShift) - 1;
constexpr std::size_t kAlignment = 64;

std::uintptr_t tagged(const DeviceId& device, std::uintptr_t address) {
  const std::uint64_t tag = kTag | (static_cast<std::uint64_t>(device.type) & kDeviceMask);
  return static_cast<std::uintptr_t>(tag << kTagShift | address);
}

std::uintptr_t untagged(const void* pointer) {
  return static_cast<std::uintptr_t>(reinterpret_cast<std::uintptr_t>(pointer) & kAddressMask);
}

}  // namespace

void DeviceMemory::Release::operator()(void* pointer) const { std::free(pointer); }

DeviceMemory& DeviceMemory::instance() {
  static DeviceMemory memory;
  return memory;
}

bool DeviceMemory::is_tagged(const void* pointer) {
  const std::uint64_t bits = reinterpret_cast<std::uintptr_t>(pointer);
  return kHasTags && (bits >> kTagShift & ~kDeviceMask) == kTag;
}

infiniStatus_t DeviceMemory::set_device_count(infiniDevice_t type, int count) {
  if (!kHasTags) {
    return fail(INFINI_STATUS_NOT_IMPLEMENTED, "emulation needs 64-bit addresses");
  }
  std::lock_guard<std::mutex> lock(mutex_);
  counts_[static_cast<std::size_t>(type)] = count;
  return kSuccess;
}

int DeviceMemory::device_count(infiniDevice_t type) const {
  const auto index = static_cast<std::size_t>(type);
  std::lock_guard<std::mutex> lock(mutex_);
  return index < counts_.size() ? counts_[index] : 0;
}

infiniStatus_t DeviceMemory::allocate(const DeviceId& device, std::size_t size, void** pointer) {
  if (size > std::numeric_limits<std::size_t>::max() - kAlignment) {
    return fail(INFINI_STATUS_INTERNAL_ERROR, "no memory for %zu bytes", size);
  }
  const std::size_t rounded = (size / kAlignment + 1) * kAlignment;
  std::unique_ptr<void, Release> data(std::aligned_alloc(kAlignment, rounded));
  const auto address = reinterpret_cast<std::uintptr_t>(data.get());
  if (!data || (address & ~kAddressMask) != 0) {
    return fail(INFINI_STATUS_INTERNAL_ERROR, "no memory for %zu bytes", size);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  blocks_.emplace(address, Block{std::move(data), size, device});
  live_bytes_ += size;
  *pointer = reinterpret_cast<void*>(tagged(device, address));
  return kSuccess;
}

infiniStatus_t DeviceMemory::release(const DeviceId& device, void* pointer) {
  if (pointer == nullptr) {
    return kSuccess;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = blocks_.find(untagged(pointer));
  if (!is_tagged(pointer) || found == blocks_.end() || !(found->second.device == device)) {
    return fail(INFINI_STATUS_BAD_PARAM, "free: %p is no memory of this device", pointer);
  }
  live_bytes_ -= found->second.size;
  blocks_.erase(found);
  return kSuccess;
}

infiniStatus_t DeviceMemory::resolve(const DeviceId& device, const void* pointer,
                                     const Extent& extent, const char* what, void** address) const {
  if (!is_tagged(pointer)) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: host address %p where memory of %s is needed", what,
                pointer, device_name(device.type));
  }
  const std::uintptr_t base = untagged(pointer);
  const auto begin = static_cast<std::uintptr_t>(static_cast<std::intptr_t>(base) + extent.begin);
  const auto end = static_cast<std::uintptr_t>(static_cast<std::intptr_t>(base) + extent.end);
  std::lock_guard<std::mutex> lock(mutex_);
  auto found = blocks_.upper_bound(begin);
  if (found == blocks_.begin()) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: %p is not in live device memory", what, pointer);
  }
  --found;
  const Block& block = found->second;
  if (end > found->first + block.size) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: %p reaches beyond live device memory", what, pointer);
  }
  if (!(block.device == device)) {
    return fail(INFINI_STATUS_BAD_PARAM, "%s: %p is memory of another device", what, pointer);
  }
  *address = reinterpret_cast<void*>(base);
  return kSuccess;
}

std::size_t DeviceMemory::live_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return live_bytes_;
}

infiniStatus_t DeviceMemory::create_stream(const DeviceId& device, void** stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const std::uintptr_t handle = tagged(device, next_stream_++);
  streams_.emplace(handle, device);
  *stream = reinterpret_cast<void*>(handle);
  return kSuccess;
}

infiniStatus_t DeviceMemory::destroy_stream(const DeviceId& device, void* stream) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = streams_.find(reinterpret_cast<std::uintptr_t>(stream));
  if (found == streams_.end() || !(found->second == device)) {
    return fail(INFINI_STATUS_BAD_PARAM, "%p is no stream of this device", stream);
  }
  streams_.erase(found);
  return kSuccess;
}

bool DeviceMemory::owns_stream(const DeviceId& device, const void* stream) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = streams_.find(reinterpret_cast<std::uintptr_t>(stream));
  return found != streams_.end() && found->second == device;
}

}  // namespace qwen3::infinicore
