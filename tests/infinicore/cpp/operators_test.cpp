// All kinds of operators through the C ABI from several threads at once, on CPU and on an emulated
// device; meant to be run under sanitizers.

#include <infiniccl.h>
#include <infiniop.h>
#include <infinirt.h>
#include <qwen3_emulation.h>
#include <qwen3_threads.h>

#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

constexpr infiniStatus_t kOk = INFINI_STATUS_SUCCESS;

// Memory of the thread's device with floats in it.
class Buffer {
 public:
  explicit Buffer(std::vector<float> values) : values_(std::move(values)) {
    CHECK(infinirtMalloc(&data_, bytes()) == kOk);
    CHECK(infinirtMemcpy(data_, values_.data(), bytes(), INFINIRT_MEMCPY_H2D) == kOk);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { CHECK(infinirtFree(data_) == kOk); }

  void* get() const { return data_; }
  std::vector<float> read() {
    CHECK(infinirtMemcpy(values_.data(), data_, bytes(), INFINIRT_MEMCPY_D2H) == kOk);
    return values_;
  }

 private:
  size_t bytes() const { return values_.size() * sizeof(float); }

  std::vector<float> values_;
  void* data_ = nullptr;
};

class Descriptor {
 public:
  Descriptor(std::vector<size_t> shape, std::vector<ptrdiff_t> strides = {}) {
    CHECK(infiniopCreateTensorDescriptor(&tensor_, shape.size(), shape.data(),
                                         strides.empty() ? nullptr : strides.data(),
                                         INFINI_DTYPE_F32) == kOk);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { CHECK(infiniopDestroyTensorDescriptor(tensor_) == kOk); }

  operator infiniopTensorDescriptor_t() const { return tensor_; }  // NOLINT: stands for it

 private:
  infiniopTensorDescriptor_t tensor_ = nullptr;
};

std::vector<float> numbers(size_t count, float step) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = std::sin(static_cast<float>(i) * step);
  }
  return values;
}

constexpr size_t kRows = 33;
constexpr size_t kInner = 70;
constexpr size_t kCols = 50;

// c = a @ w^T with a weight as a transposed view, then softmax in place, then a copy.
void run_once(infiniopHandle_t handle) {
  Buffer a(numbers(kRows * kInner, 0.1f));
  Buffer w(numbers(kCols * kInner, 0.3f));
  Buffer c(std::vector<float>(kRows * kCols, NAN));
  Buffer workspace(std::vector<float>(256));
  const size_t workspace_size = 256 * sizeof(float);
  Descriptor a_desc({kRows, kInner});
  Descriptor w_desc({kInner, kCols}, {1, static_cast<ptrdiff_t>(kInner)});
  Descriptor c_desc({kRows, kCols});

  infiniopGemmDescriptor_t gemm = nullptr;
  CHECK(infiniopCreateGemmDescriptor(handle, &gemm, c_desc, a_desc, w_desc) == kOk);
  CHECK(infiniopGemm(gemm, workspace.get(), workspace_size, c.get(), a.get(), w.get(), 1.0f, 0.0f,
                     nullptr) == kOk);
  CHECK(infiniopDestroyGemmDescriptor(gemm) == kOk);

  infiniopCausalSoftmaxDescriptor_t softmax = nullptr;
  CHECK(infiniopCreateCausalSoftmaxDescriptor(handle, &softmax, c_desc, c_desc) == kOk);
  CHECK(infiniopCausalSoftmax(softmax, workspace.get(), workspace_size, c.get(), c.get(),
                              nullptr) == kOk);
  CHECK(infiniopDestroyCausalSoftmaxDescriptor(softmax) == kOk);

  Buffer copy(std::vector<float>(kRows * kCols, NAN));
  infiniopRearrangeDescriptor_t rearrange = nullptr;
  CHECK(infiniopCreateRearrangeDescriptor(handle, &rearrange, c_desc, c_desc) == kOk);
  CHECK(infiniopRearrange(rearrange, copy.get(), c.get(), nullptr) == kOk);
  CHECK(infiniopDestroyRearrangeDescriptor(rearrange) == kOk);

  const std::vector<float> rows = copy.read();
  for (size_t i = 0; i < kRows; ++i) {
    float sum = 0.0f;
    for (size_t j = 0; j < kCols; ++j) {
      sum += rows[i * kCols + j];
    }
    CHECK(std::abs(sum - 1.0f) < 1e-5f);  // a softmax row sums to 1
    CHECK(i + 1 >= kRows || rows[i * kCols + kCols - 1] == 0.0f);
  }
}

void run_on(infiniDevice_t device) {
  CHECK(infinirtSetDevice(device, 0) == kOk);
  infiniopHandle_t handle = nullptr;
  CHECK(infiniopCreateHandle(&handle) == kOk);
  for (int round = 0; round < 10; ++round) {
    run_once(handle);
  }
  CHECK(infiniopDestroyHandle(handle) == kOk);
}

}  // namespace

int main() {
  qwen3_infinicore_set_num_threads(3);
  CHECK(qwen3_infinicore_emulate(INFINI_DEVICE_CAMBRICON, 1) == kOk);
  std::vector<std::thread> threads;
  for (const infiniDevice_t device :
       {INFINI_DEVICE_CPU, INFINI_DEVICE_CAMBRICON, INFINI_DEVICE_CPU, INFINI_DEVICE_CAMBRICON}) {
    threads.emplace_back(run_on, device);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(qwen3_infinicore_emulated_bytes() == 0);
  infinicclComm_t communicator = nullptr;
  const int id = 0;
  CHECK(infinicclCommInitAll(INFINI_DEVICE_CPU, &communicator, 1, &id) ==
        INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED);
  std::puts("ok");
}
