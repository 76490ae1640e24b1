// The one file that names the backends.
#include "octet/kernels/backends.h"

#include "octet/base/error.h"
#include "octet/kernels/cpu/cpu.h"
#include "octet/kernels/reference/reference.h"

namespace octet {
namespace {

KernelTable make_reference_table() {
  KernelTable table;
  add_reference_kernels(table);
  return table;
}

KernelTable make_cpu_table() {
  KernelTable table;
  add_cpu_kernels(table);
  add_reference_kernels(table);
  return table;
}

}  // namespace

const KernelTable& kernel_table(Device device, KernelSelection selection) {
  if (device.kind != DeviceKind::kCpu)
    fail(ErrorCode::kUnsupported, "{}: this build of octet has kernels for: cpu", device_name(device));
  static const KernelTable reference = make_reference_table();
  static const KernelTable cpu = make_cpu_table();
  return selection == KernelSelection::kReferenceOnly ? reference : cpu;
}

}  // namespace octet
