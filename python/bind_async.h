// What AsyncLLM is made of: requests whose outputs go to a mailbox.
#pragma once

#include <nanobind/nanobind.h>

namespace octet {

void bind_async(nanobind::module_& m);

}  // namespace octet
