// Adds the quantiser to the extension module.
#pragma once

#include <nanobind/nanobind.h>

namespace octet {

void bind_quantize(nanobind::module_& m);

}  // namespace octet
