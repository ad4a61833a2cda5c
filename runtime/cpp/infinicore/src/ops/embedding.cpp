#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_EMBEDDING

#include <cstring>

#include "dispatch.hpp"
#include "infiniop/ops/embedding.h"
#include "operator.hpp"

using namespace qwen3::infinicore;

namespace {

struct EmbeddingDescriptor : InfiniopDescriptor {
  infiniDtype_t index_dtype;
  std::size_t count;
  std::size_t vocab_size;
  std::size_t row_bytes;
};

// Copies a row per id. Unlike the real library, which leaves the rows of ids outside the table as
// they were and says nothing, this returns BAD_PARAM for them.
template <typename Index>
infiniStatus_t gather(const EmbeddingDescriptor& own, const std::array<void*, 3>& data) {
  auto* output = static_cast<unsigned char*>(data[0]);
  const auto* ids = static_cast<const Index*>(data[1]);
  const auto* weight = static_cast<const unsigned char*>(data[2]);
  infiniStatus_t status = kSuccess;
  for (std::size_t i = 0; i < own.count; ++i) {
    const auto row = static_cast<std::size_t>(ids[i]);
    if (row >= own.vocab_size) {
      status = fail(INFINI_STATUS_BAD_PARAM, "embedding: id %lld of %zu",
                    static_cast<long long>(ids[i]), own.vocab_size);
      continue;
    }
    std::memcpy(output + i * own.row_bytes, weight + row * own.row_bytes, own.row_bytes);
  }
  return status;
}

}  // namespace

infiniStatus_t infiniopCreateEmbeddingDescriptor(infiniopHandle_t handle,
                                                 infiniopEmbeddingDescriptor_t* desc_ptr,
                                                 infiniopTensorDescriptor_t output,
                                                 infiniopTensorDescriptor_t input,
                                                 infiniopTensorDescriptor_t weight) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kEmbeddingRules, {output, input, weight});
    QWEN3_TRY(operands.check());
    std::vector<std::size_t> expected = input->shape;
    expected.push_back(weight->shape[1]);
    if (output->shape != expected) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE,
                             "output is not the shape of input plus the size of a weight row");
    }
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<EmbeddingDescriptor>();
    descriptor->index_dtype = input->dtype;
    descriptor->count = input->size();
    descriptor->vocab_size = weight->shape[0];
    descriptor->row_bytes = weight->shape[1] * dtype_size(weight->dtype);
    return finish_create(operands, operands.in_order(), std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopEmbedding(infiniopEmbeddingDescriptor_t desc, void* output,
                                 const void* input, const void* weight, void* stream) {
  return run<EmbeddingDescriptor, 3>(
      kEmbeddingRules, desc, {nullptr, 0}, stream, {output, input, weight},
      [](const EmbeddingDescriptor& own, const std::array<void*, 3>& data) {
        return own.index_dtype == INFINI_DTYPE_I32 ? gather<std::int32_t>(own, data)
                                                   : gather<std::int64_t>(own, data);
      });
}

infiniStatus_t infiniopDestroyEmbeddingDescriptor(infiniopEmbeddingDescriptor_t desc) {
  return destroy(kEmbeddingRules, desc);
}

#endif  // QWEN3_OP_EMBEDDING
