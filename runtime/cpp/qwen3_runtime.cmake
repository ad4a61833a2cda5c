# Makes the target qwen3_runtime of a folder in which the shared runtime is already compiled.
# Expects QWEN3_RUNTIME_DIR, QWEN3_CPP_DIR, QWEN3_INFINICORE_HEADERS, and for an installed
# InfiniCore QWEN3_INFINI_LIBRARIES.
find_package(Threads REQUIRED)
add_library(qwen3_runtime INTERFACE)
target_include_directories(qwen3_runtime INTERFACE ${QWEN3_CPP_DIR})
target_include_directories(qwen3_runtime SYSTEM INTERFACE ${QWEN3_INFINICORE_HEADERS})
target_link_libraries(qwen3_runtime INTERFACE
  ${QWEN3_RUNTIME_DIR}/libqwen3_engine_base.a ${QWEN3_INFINI_LIBRARIES} Threads::Threads)
