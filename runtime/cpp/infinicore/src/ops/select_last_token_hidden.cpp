#include "qwen3_api_table.hpp"

#ifdef QWEN3_OP_SELECT_LAST_TOKEN_HIDDEN

#include <cstring>

#include "infiniop/ops/select_last_token_hidden.h"
#include "operator.hpp"

using namespace qwen3::infinicore;

namespace {

struct SelectLastTokenHiddenDescriptor : InfiniopDescriptor {
  std::size_t requests;
  std::size_t tokens;
  std::size_t row_bytes;
};

infiniStatus_t select_rows(const SelectLastTokenHiddenDescriptor& own,
                           const std::array<void*, 3>& data) {
  auto* output = static_cast<unsigned char*>(data[0]);
  const auto* hidden = static_cast<const unsigned char*>(data[1]);
  const auto* offsets = static_cast<const std::int32_t*>(data[2]);
  for (std::size_t r = 0; r < own.requests; ++r) {
    const auto row = static_cast<std::size_t>(offsets[r + 1]) - 1;
    if (row >= own.tokens) {
      return fail(INFINI_STATUS_BAD_PARAM, "select_last_token_hidden: offset %d of %zu tokens",
                  static_cast<int>(offsets[r + 1]), own.tokens);
    }
    std::memcpy(output + r * own.row_bytes, hidden + row * own.row_bytes, own.row_bytes);
  }
  return kSuccess;
}

}  // namespace

infiniStatus_t infiniopCreateSelectLastTokenHiddenDescriptor(
    infiniopHandle_t handle, infiniopSelectLastTokenHiddenDescriptor_t* desc_ptr,
    infiniopTensorDescriptor_t output, infiniopTensorDescriptor_t hidden_states,
    infiniopTensorDescriptor_t input_offsets) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kSelectLastTokenHiddenRules, {output, hidden_states, input_offsets});
    QWEN3_TRY(operands.check());
    const std::size_t size = hidden_states->shape[2];
    if (output->shape[0] != 1 || hidden_states->shape[0] != 1 || output->shape[2] != size ||
        input_offsets->shape[0] != output->shape[1] + 1) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE,
                             "expected [1, r, d] from [1, t, d] and [r + 1] offsets");
    }
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<SelectLastTokenHiddenDescriptor>();
    descriptor->requests = output->shape[1];
    descriptor->tokens = hidden_states->shape[1];
    descriptor->row_bytes = size * dtype_size(output->dtype);
    return finish_create(operands, operands.in_order(), std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopSelectLastTokenHidden(infiniopSelectLastTokenHiddenDescriptor_t desc,
                                             void* output, const void* hidden_states,
                                             const void* input_offsets, void* stream) {
  return run<SelectLastTokenHiddenDescriptor, 3>(kSelectLastTokenHiddenRules, desc, {nullptr, 0},
                                                 stream, {output, hidden_states, input_offsets},
                                                 select_rows);
}

infiniStatus_t infiniopDestroySelectLastTokenHiddenDescriptor(
    infiniopSelectLastTokenHiddenDescriptor_t desc) {
  return destroy(kSelectLastTokenHiddenRules, desc);
}

#endif  // QWEN3_OP_SELECT_LAST_TOKEN_HIDDEN
