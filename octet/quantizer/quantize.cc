#include "octet/quantizer/quantize.h"

#include <chrono>
#include <filesystem>

#include "octet/base/build_facts.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/checkpoint/output_folder.h"
#include "octet/checkpoint/safetensors_writer.h"
#include "octet/quantizer/journal.h"
#include "octet/quantizer/output_files.h"
#include "octet/quantizer/plan.h"
#include "octet/quantizer/quantize_linears.h"
#include "octet/quantizer/reload_check.h"
#include "octet/quantizer/source_tensor.h"

namespace octet {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kJournalName = "octet_journal.jsonl";
// Bytes of the source after which what was written is synced: what a kill costs at most.
constexpr int64_t kBytesPerSync = int64_t{256} << 20;
constexpr int64_t kPieceBytes = int64_t{16} << 20;       // of a tensor that is copied
constexpr int64_t kSmallFilesBytes = int64_t{64} << 20;  // tokenizer and the like

// Of the files' names, sizes and times: whether it is the same source, without reading it.
Json describe_source(const std::string& folder, const SafetensorsFolder& files) {
  Json list = Json::object();
  for (const auto& [name, entry] : files.entries()) {
    const fs::path file = files.file_of(name);
    const std::string key = file.filename().string();
    if (list.contains(key)) continue;
    list[key] = {fs::file_size(file), fs::last_write_time(file).time_since_epoch().count()};
  }
  return {{"folder", fs::absolute(folder).lexically_normal().string()}, {"files", list}};
}

void check_disk_space(const fs::path& target, int64_t num_bytes) {
  fs::path place = fs::absolute(target).parent_path();
  while (!fs::exists(place) && place.has_parent_path() && place != place.parent_path()) place = place.parent_path();
  std::error_code error;
  const fs::space_info space = fs::space(place, error);
  if (error || static_cast<int64_t>(space.available) >= num_bytes) return;
  constexpr double kGiB = 0x1p30;
  fail(ErrorCode::kIo, "{}: {:.2f} GiB are needed, {:.2f} GiB are free on {}", target.string(),
       static_cast<double>(num_bytes) / kGiB, static_cast<double>(space.available) / kGiB, place.string());
}

class Quantization {
 public:
  explicit Quantization(const QuantizeOptions& options)
      : options_(options),
        config_(read_plain_config(options.model_folder)),
        source_(options.model_folder),
        threads_(options.num_threads > 0 ? options.num_threads : ThreadPool::default_num_threads()),
        plan_(plan_quantization(source_, named_scheme(options.scheme, options.activation_scheme), options.dialect,
                                options.ignore)) {}

  QuantizeReport run();

 private:
  OutputFolder make_folder(const SafetensorsLayout& layout) const;
  Json task() const;
  Json written_config() const;
  void process(const PlannedUnit& unit);
  bool take_from_journal(const PlannedUnit& unit);
  void copy(const std::string& name);
  void sync();
  void progress(const PlannedUnit& unit) {
    done_bytes_ += unit.source_bytes;
    if (options_.on_progress) options_.on_progress(done_bytes_, plan_.source_bytes);
  }

  const QuantizeOptions& options_;
  const Json config_;
  SafetensorsFolder source_;
  ThreadPool threads_;
  QuantizePlan plan_;
  Journal* journal_ = nullptr;
  SafetensorsWriter* writer_ = nullptr;
  std::vector<Journal::Entry> unsynced_;
  int64_t unsynced_bytes_ = 0;
  int64_t done_bytes_ = 0;
  QuantizeReport report_;
};

OutputFolder Quantization::make_folder(const SafetensorsLayout& layout) const {
  const fs::path target(options_.out_folder);
  if (fs::exists(target) && fs::equivalent(target, options_.model_folder))
    fail(ErrorCode::kUsage, "{}: is the model itself; choose another folder to write", options_.out_folder);
  // What is resumed has its space already.
  if (!options_.resume) check_disk_space(target, safetensors_bytes(plan_.entries, layout) + kSmallFilesBytes);
  return OutputFolder(options_.out_folder, {.unfinished = OutputRules::Unfinished::kKeep, .resume = options_.resume});
}

// What must be the same for a run to be continued.
Json Quantization::task() const {
  return {{"tool", fmt::format("octet {} ({})", build::kVersion, build::kCommit)},
          {"source", describe_source(options_.model_folder, source_)},
          {"config", config_},
          {"scheme", plan_.scheme.name},
          {"activations", plan_.scheme.activation.to_string()},
          {"quantization_config", plan_.writer->quantization_config(plan_.quant)},
          {"max_shard_bytes", options_.max_shard_bytes}};
}

// No date: the same source and options give the same bytes.
Json Quantization::written_config() const {
  Json config = config_;
  config["quantization_config"] = plan_.writer->quantization_config(plan_.quant);
  config["quantized_by"] = {{"tool", "octet"},
                            {"version", build::kVersion},
                            {"commit", build::kCommit},
                            {"source", fs::absolute(options_.model_folder).lexically_normal().filename().string()},
                            {"scheme", plan_.scheme.name},
                            {"activations", plan_.scheme.activation.to_string()}};
  return config;
}

// Whether an earlier run has written it.
bool Quantization::take_from_journal(const PlannedUnit& unit) {
  const Json* facts = journal_->find(unit.name);
  if (facts == nullptr) return false;
  if (unit.parts.empty()) {
    writer_->keep(unit.name);
    ++report_.num_copied;
    ++report_.num_resumed;
  }
  for (const PlannedLinear& part : unit.parts) {
    writer_->keep(part.weight());
    writer_->keep(fmt::format("{}.{}", part.module, plan_.writer->weight_scale));
    ++report_.num_resumed;
  }
  for (const Json& figures : *facts) report_.linears.push_back(LinearFigures::from_json(figures));
  return true;
}

void Quantization::copy(const std::string& name) {
  const SourceTensor tensor(source_, name, threads_);
  const std::span<const std::byte> bytes = tensor.bytes();
  for (size_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
    writer_->write(name, bytes.subspan(begin, std::min<size_t>(kPieceBytes, bytes.size() - begin)),
                   static_cast<int64_t>(begin));
  }
  ++report_.num_copied;
}

void Quantization::process(const PlannedUnit& unit) {
  Json facts = Json::array();
  if (unit.parts.empty()) {
    copy(unit.name);
  } else {
    for (LinearFigures& figures : quantize_linears(plan_, unit, source_, *writer_, threads_)) {
      facts.push_back(figures.to_json());
      report_.linears.push_back(std::move(figures));
    }
  }
  unsynced_.push_back({.unit = unit.name, .facts = std::move(facts)});
  unsynced_bytes_ += unit.source_bytes;
  if (unsynced_bytes_ >= kBytesPerSync) sync();
}

void Quantization::sync() {
  writer_->sync();
  journal_->record(unsynced_);
  unsynced_.clear();
  unsynced_bytes_ = 0;
}

QuantizeReport Quantization::run() {
  const auto start = std::chrono::steady_clock::now();
  const SafetensorsLayout layout{.max_shard_bytes = options_.max_shard_bytes};
  const OutputFolder folder = make_folder(layout);
  Journal journal(folder.file(kJournalName), task(), folder.resumed());
  SafetensorsWriter writer(folder.partial(), plan_.entries, layout,
                           folder.resumed() ? SafetensorsWriter::Begin::kContinue : SafetensorsWriter::Begin::kAfresh);
  journal_ = &journal;
  writer_ = &writer;
  for (const PlannedUnit& unit : plan_.units) {
    if (!take_from_journal(unit)) process(unit);
    progress(unit);
  }
  sync();
  writer.finish();
  const Json config = written_config();
  check_written(folder.partial(), config.at("quantization_config"), plan_, source_, threads_);
  copy_model_files(options_.model_folder, folder.partial());
  write_file(folder.file("config.json"), config.dump(2) + "\n");
  journal.remove();
  folder.finish();
  report_.scheme = plan_.scheme.name;
  report_.dialect = plan_.writer->name;
  report_.out_folder = folder.target().string();
  report_.source_bytes = plan_.source_bytes;
  report_.written_bytes = writer.num_bytes();
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report_;
}

}  // namespace

QuantizeReport quantize_checkpoint(const QuantizeOptions& options) { return Quantization(options).run(); }

}  // namespace octet
