// Speed of an InfiniCore library's matrix product on CPU, through the C ABI.
//
// Link it with any InfiniCore (the embedded one or an installed one) and compare the tables of one
// sitting: absolute figures drift with the machine. Weights are [N, K], passed as the transposed
// view, as engines pass them.

#include <infiniop.h>
#include <infinirt.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

namespace {

void check(infiniStatus_t status, const char* what) {
  if (status != INFINI_STATUS_SUCCESS) {
    std::fprintf(stderr, "%s returned %d\n", what, static_cast<int>(status));
    std::exit(1);
  }
}

struct Type {
  const char* name;
  infiniDtype_t dtype;
  size_t size;
};

constexpr Type kTypes[] = {
    {"f32", INFINI_DTYPE_F32, 4}, {"bf16", INFINI_DTYPE_BF16, 2}, {"f16", INFINI_DTYPE_F16, 2}};

// Numbers around 1 in every type: the exponent's upper bits are the same, the rest is random.
std::vector<unsigned char> operand(const Type& type, size_t count) {
  std::mt19937 generator(1);
  std::vector<unsigned char> bytes(count * type.size);
  for (size_t i = 0; i < count; ++i) {
    const float value = 1.0f + static_cast<float>(generator() & 0xffffu) / 65536.0f;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const auto half = static_cast<uint16_t>(
        type.dtype == INFINI_DTYPE_F16 ? 0x3c00u | (bits >> 13 & 0x3ffu) : bits >> 16);
    const void* source = type.size == 4 ? static_cast<const void*>(&bits) : &half;
    std::memcpy(bytes.data() + i * type.size, source, type.size);
  }
  return bytes;
}

infiniopTensorDescriptor_t describe(size_t rows, size_t cols, ptrdiff_t row, ptrdiff_t col,
                                    infiniDtype_t dtype) {
  const size_t shape[] = {rows, cols};
  const ptrdiff_t strides[] = {row, col};
  infiniopTensorDescriptor_t descriptor;
  check(infiniopCreateTensorDescriptor(&descriptor, 2, shape, strides, dtype), "tensor");
  return descriptor;
}

// Best seconds of one call within about half a second.
double seconds(infiniopGemmDescriptor_t gemm, void* c, const void* a, const void* b) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  const auto end = Clock::now() + std::chrono::milliseconds(500);
  do {
    const auto start = Clock::now();
    check(infiniopGemm(gemm, nullptr, 0, c, a, b, 1.0f, 0.0f, nullptr), "gemm");
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return best;
}

void measure(infiniopHandle_t handle, const Type& type, size_t m, size_t n, size_t k) {
  const auto a = operand(type, m * k);
  const auto w = operand(type, n * k);
  std::vector<unsigned char> c(m * n * type.size);
  const auto in_k = static_cast<ptrdiff_t>(k);
  const auto in_n = static_cast<ptrdiff_t>(n);
  infiniopTensorDescriptor_t descriptors[] = {describe(m, n, in_n, 1, type.dtype),
                                              describe(m, k, in_k, 1, type.dtype),
                                              describe(k, n, 1, in_k, type.dtype)};
  infiniopGemmDescriptor_t gemm;
  check(infiniopCreateGemmDescriptor(handle, &gemm, descriptors[0], descriptors[1], descriptors[2]),
        "create");
  const double best = seconds(gemm, c.data(), a.data(), w.data());
  const double operations = 2.0 * static_cast<double>(m * n * k);
  const double bytes = static_cast<double>(n * k * type.size);
  std::printf("%-5s M=%-4zu N=%zu K=%zu %10.2f GFLOP/s %8.2f GB/s of weights\n", type.name, m, n, k,
              operations / best * 1e-9, bytes / best * 1e-9);
  std::fflush(stdout);
  check(infiniopDestroyGemmDescriptor(gemm), "destroy");
  for (infiniopTensorDescriptor_t descriptor : descriptors) {
    check(infiniopDestroyTensorDescriptor(descriptor), "tensor");
  }
}

}  // namespace

// Arguments: N K, by default 6144 2048.
int main(int argc, char** argv) {
  const size_t n = argc > 2 ? std::strtoul(argv[1], nullptr, 10) : 6144;
  const size_t k = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2048;
  infiniopHandle_t handle;
  check(infiniopCreateHandle(&handle), "handle");
  for (const Type& type : kTypes) {
    for (const size_t m : {1, 8, 64, 256}) {
      measure(handle, type, m, n, k);
    }
  }
  check(infiniopDestroyHandle(handle), "handle");
}
