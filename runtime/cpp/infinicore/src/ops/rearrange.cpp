#include "infiniop/ops/rearrange.h"

#include "copy.hpp"
#include "operator.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct RearrangeDescriptor : InfiniopDescriptor {
  std::size_t element_size;
  kernels::StridedLoop<2> loop;
};

}  // namespace

infiniStatus_t infiniopCreateRearrangeDescriptor(infiniopHandle_t handle,
                                                 infiniopRearrangeDescriptor_t* desc_ptr,
                                                 infiniopTensorDescriptor_t dst,
                                                 infiniopTensorDescriptor_t src) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kRearrangeRules, {dst, src});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(operands.check_same_shape(0, 1));
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<RearrangeDescriptor>();
    descriptor->element_size = dtype_size(dst->dtype);
    descriptor->loop = {dst->shape, {dst->strides, src->strides}};
    return finish_create(operands, {0, 1}, std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopRearrange(infiniopRearrangeDescriptor_t desc, void* dst, const void* src,
                                 void* stream) {
  return run<RearrangeDescriptor, 2>(
      kRearrangeRules, desc, {nullptr, 0}, stream, {dst, src},
      [](const RearrangeDescriptor& own, const std::array<void*, 2>& data) {
        switch (own.element_size) {
          case 1:
            kernels::strided_copy<1>(own.loop, data[0], data[1]);
            break;
          case 2:
            kernels::strided_copy<2>(own.loop, data[0], data[1]);
            break;
          case 4:
            kernels::strided_copy<4>(own.loop, data[0], data[1]);
            break;
          case 8:
            kernels::strided_copy<8>(own.loop, data[0], data[1]);
            break;
          default:
            kernels::strided_copy<16>(own.loop, data[0], data[1]);
            break;
        }
        return kSuccess;
      });
}

infiniStatus_t infiniopDestroyRearrangeDescriptor(infiniopRearrangeDescriptor_t desc) {
  return destroy(kRearrangeRules, desc);
}
