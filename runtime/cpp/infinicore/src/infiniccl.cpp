// infiniccl without a communicator: what the real library answers when it is built without one.

#include "infiniccl.h"

#include "qwen3_api_table.hpp"
#include "status.hpp"

namespace {

constexpr infiniStatus_t kNoCommunicator = INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;

// No call ever creates a communicator, so any but NULL is not ours.
infiniStatus_t refuse(infinicclComm_t comm) {
  return comm == nullptr ? INFINI_STATUS_NULL_POINTER : kNoCommunicator;
}

}  // namespace

infiniStatus_t infinicclCommInitAll(infiniDevice_t, infinicclComm_t*, int, const int*) {
  return kNoCommunicator;
}

infiniStatus_t infinicclCommDestroy(infinicclComm_t comm) {
  return comm == nullptr ? INFINI_STATUS_SUCCESS : kNoCommunicator;
}

infiniStatus_t infinicclAllReduce(void*, void*, size_t, infiniDtype_t, infinicclReduceOp_t,
                                  infinicclComm_t comm, infinirtStream_t) {
  return refuse(comm);
}

#if QWEN3_RELEASE_2026_08

infiniStatus_t infinicclGetUniqueId(infinicclUniqueId_t*) { return kNoCommunicator; }

infiniStatus_t infinicclCommInitRank(infinicclComm_t*, int, infinicclUniqueId_t, int) {
  return kNoCommunicator;
}

infiniStatus_t infinicclGroupStart(infinicclComm_t comm) { return refuse(comm); }

infiniStatus_t infinicclGroupEnd(infinicclComm_t comm) { return refuse(comm); }

infiniStatus_t infinicclBroadcast(const void*, void*, size_t, infiniDtype_t, int,
                                  infinicclComm_t comm, infinirtStream_t) {
  return refuse(comm);
}

infiniStatus_t infinicclSend(const void*, size_t, infiniDtype_t, int, infinicclComm_t comm,
                             infinirtStream_t) {
  return refuse(comm);
}

infiniStatus_t infinicclRecv(void*, size_t, infiniDtype_t, int, infinicclComm_t comm,
                             infinirtStream_t) {
  return refuse(comm);
}

infiniStatus_t infinicclAllGather(void*, void*, size_t, infiniDtype_t, infinicclComm_t comm,
                                  infinirtStream_t) {
  return refuse(comm);
}

infiniStatus_t infinicclAllGatherV(void*, void*, const size_t*, int, infiniDtype_t,
                                   infinicclComm_t comm, infinirtStream_t) {
  return refuse(comm);
}

infiniStatus_t infinicclReduceScatter(void*, void*, size_t, infiniDtype_t, infinicclReduceOp_t,
                                      infinicclComm_t comm, infinirtStream_t) {
  return refuse(comm);
}

infiniStatus_t infinicclReduceScatterV(void*, void*, const size_t*, int, infiniDtype_t,
                                       infinicclReduceOp_t, infinicclComm_t comm,
                                       infinirtStream_t) {
  return refuse(comm);
}

#endif  // QWEN3_RELEASE_2026_08
