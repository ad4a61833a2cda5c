# Keeps of a list of sources those that are there. A standalone engine brings only those it needs;
# where one is missing that it does need, the linker names what is undefined.
function(qwen3_present_sources result)
  set(present)
  foreach(source IN LISTS ARGN)
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${source}")
      list(APPEND present "${source}")
    endif()
  endforeach()
  set(${result} ${present} PARENT_SCOPE)
endfunction()
