// Operator descriptors keyed by full equality of operator, tensors and attributes.
#pragma once

#include <infiniop.h>

#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/check.hpp"
#include "engine/device.hpp"
#include "engine/tensor.hpp"

namespace qwen3 {

// infiniopTensorDescriptor_t for the time of one Create call.
class TensorDescriptor {
 public:
  explicit TensorDescriptor(const Tensor& tensor) {
    check(infiniopCreateTensorDescriptor(&descriptor_, tensor.rank, tensor.shape.data(),
                                         tensor.strides.data(), tensor.dtype),
          "infiniopCreateTensorDescriptor");
  }
  ~TensorDescriptor() { infiniopDestroyTensorDescriptor(descriptor_); }
  TensorDescriptor(const TensorDescriptor&) = delete;
  TensorDescriptor& operator=(const TensorDescriptor&) = delete;

  infiniopTensorDescriptor_t get() const { return descriptor_; }

 private:
  infiniopTensorDescriptor_t descriptor_ = nullptr;
};

// A key spells out everything a descriptor depends on, word by word: no hash decides equality.
class DescriptorKey {
 public:
  // Parts are tensors, floats and enumerators.
  template <class... Parts>
  explicit DescriptorKey(int operator_id, const Parts&... parts) {
    words_.reserve(1 + sizeof...(parts) * (1 + 2 * Tensor::kMaxRank));
    add(operator_id);
    (add(parts), ...);
  }

  bool operator==(const DescriptorKey& other) const { return words_ == other.words_; }

  struct Hash {
    size_t operator()(const DescriptorKey& key) const {
      uint64_t hash = 14695981039346656037u;  // FNV-1a over the words
      for (int64_t word : key.words_) hash = (hash ^ static_cast<uint64_t>(word)) * 1099511628211u;
      return static_cast<size_t>(hash);
    }
  };

 private:
  void add(const Tensor& tensor) {
    words_.push_back(static_cast<int64_t>(tensor.dtype) << 8 | static_cast<int64_t>(tensor.rank));
    for (size_t axis = 0; axis < tensor.rank; ++axis) {
      words_.push_back(static_cast<int64_t>(tensor.shape[axis]));
      words_.push_back(static_cast<int64_t>(tensor.strides[axis]));
    }
  }
  void add(float value) {
    int32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    words_.push_back(bits);
  }
  void add(int value) { words_.push_back(value); }

  std::vector<int64_t> words_;
};

// One created operator: the descriptor, which it owns, and the workspace it asks for.
class CachedOperator {
 public:
  using Destroy = infiniStatus_t (*)(InfiniopDescriptor*);

  CachedOperator(InfiniopDescriptor* descriptor, Destroy destroy)
      : descriptor_(descriptor, destroy) {}

  InfiniopDescriptor* descriptor() const { return descriptor_.get(); }
  size_t workspace_size = 0;

 private:
  std::unique_ptr<InfiniopDescriptor, Destroy> descriptor_;
};

// Keeps the most recently used descriptors. Lengths are padded to buckets, so a running engine
// needs few; the bound only matters for prompts of ever new lengths.
class DescriptorCache {
 public:
  explicit DescriptorCache(const Device& device) : device_(device) {}
  DescriptorCache(const DescriptorCache&) = delete;
  DescriptorCache& operator=(const DescriptorCache&) = delete;

  // Returns the operator of `key`, calling `create()` -> CachedOperator when it is new.
  template <class Create>
  const CachedOperator& find_or_create(const DescriptorKey& key, Create create) {
    const auto found = index_.find(key);
    if (found != index_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->second;
    }
    if (entries_.size() >= kCapacity) evict_oldest();
    entries_.emplace_front(key, create());
    index_.emplace(key, entries_.begin());
    return entries_.front().second;
  }

 private:
  static constexpr size_t kCapacity = 4096;
  using Entries = std::list<std::pair<DescriptorKey, CachedOperator>>;

  void evict_oldest() {
    device_.synchronize();  // the descriptor may still be in flight
    index_.erase(entries_.back().first);
    entries_.pop_back();
  }

  const Device& device_;
  Entries entries_;
  std::unordered_map<DescriptorKey, Entries::iterator, DescriptorKey::Hash> index_;
};

// Scratch memory that operators ask for; consecutive operators on one stream share it.
class Workspace {
 public:
  explicit Workspace(const Device& device) : device_(device) {}

  void* reserve(size_t num_bytes) {
    if (num_bytes > memory_.num_bytes()) {
      device_.synchronize();
      memory_ = DeviceMemory(device_, num_bytes);
    }
    return memory_.get();
  }

 private:
  const Device& device_;
  DeviceMemory memory_;
};

}  // namespace qwen3
