// octet.quantize: the quantiser as the Python package sees it.
#include "python/bind_quantize.h"

#include <nanobind/stl/function.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "octet/checkpoint/hub_cache.h"
#include "octet/quantizer/quantize.h"

namespace nb = nanobind;

namespace octet {
namespace {

// Ctrl-C ends the run between two tensors; it can be resumed.
std::string quantize(QuantizeOptions options, const std::optional<std::function<void(int64_t, int64_t)>>& on_progress) {
  const nb::gil_scoped_release release;
  options.on_progress = [&](int64_t done, int64_t total) {
    const nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (on_progress) (*on_progress)(done, total);
  };
  options.model_folder = resolve_model(options.model_folder);
  return quantize_checkpoint(options).to_json().dump();
}

}  // namespace

void bind_quantize(nb::module_& m) {
  nb::class_<QuantizeOptions>(m, "QuantizeOptions")
      .def(nb::init<>())
      .def_rw("model", &QuantizeOptions::model_folder)
      .def_rw("out", &QuantizeOptions::out_folder)
      .def_rw("scheme", &QuantizeOptions::scheme)
      .def_rw("activation_scheme", &QuantizeOptions::activation_scheme)
      .def_rw("dialect", &QuantizeOptions::dialect)
      .def_rw("ignore", &QuantizeOptions::ignore)
      .def_rw("calibration", &QuantizeOptions::calibration)
      .def_rw("calibration_tokens", &QuantizeOptions::calibration_tokens)
      .def_rw("num_samples", &QuantizeOptions::num_samples)
      .def_rw("max_seq_len", &QuantizeOptions::max_seq_len)
      .def_rw("calibrate_all_experts", &QuantizeOptions::calibrate_all_experts)
      .def_rw("kv_cache_scheme", &QuantizeOptions::kv_cache_scheme)
      .def_rw("recipe", &QuantizeOptions::recipe)
      .def_rw("held_out", &QuantizeOptions::held_out)
      .def_rw("num_held_out", &QuantizeOptions::num_held_out)
      .def_rw("smooth", &QuantizeOptions::smooth)
      .def_rw("plain_share", &QuantizeOptions::plain_share)
      .def_rw("headroom", &QuantizeOptions::headroom)
      .def_rw("max_kld", &QuantizeOptions::max_kld, nb::arg().none())
      .def_rw("resume", &QuantizeOptions::resume)
      .def_rw("num_threads", &QuantizeOptions::num_threads)
      .def_rw("max_shard_bytes", &QuantizeOptions::max_shard_bytes);
  m.def("resolve_model",
        [](const std::string& model, const std::string& revision) { return resolve_model(model, revision); });
  m.def("quantize", &quantize, nb::arg("options"), nb::arg("on_progress").none());
}

}  // namespace octet
