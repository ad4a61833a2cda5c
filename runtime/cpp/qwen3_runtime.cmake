# Makes the targets qwen3_runtime and qwen3_bindings of a folder, QWEN3_RUNTIME_DIR, in which the
# shared runtime is already compiled. Expects QWEN3_CPP_DIR, QWEN3_INFINICORE_HEADERS, and for an
# installed InfiniCore QWEN3_INFINI_LIBRARIES. Looks for nothing, not even threads: that would compile
# a program per engine, and the runtime was compiled with them.
add_library(qwen3_runtime INTERFACE)
target_include_directories(qwen3_runtime INTERFACE ${QWEN3_CPP_DIR})
target_include_directories(qwen3_runtime SYSTEM INTERFACE ${QWEN3_INFINICORE_HEADERS})
target_link_libraries(qwen3_runtime INTERFACE ${QWEN3_RUNTIME_DIR}/libqwen3_engine_base.a)
if(QWEN3_INFINI_LIBRARIES)
  target_link_libraries(qwen3_runtime INTERFACE ${QWEN3_INFINI_LIBRARIES} -pthread)
else()
  target_compile_definitions(qwen3_runtime INTERFACE INFINICORE_HIDDEN)
  target_link_libraries(qwen3_runtime INTERFACE
    ${QWEN3_RUNTIME_DIR}/libinfinicore_embedded.a -pthread)
endif()

add_library(qwen3_bindings INTERFACE)
target_link_libraries(qwen3_bindings INTERFACE
  ${QWEN3_RUNTIME_DIR}/libqwen3_bindings.a qwen3_runtime)
