// StepRunner: runs one step at a time somewhere else, while the caller does other things.
#pragma once

#include "octet/engine/step_plan.h"

namespace octet {

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // `plan` must live until wait() returns. One step at a time, but for start_behind.
  virtual void start(const StepPlan& plan) = 0;
  // Starts this step behind the one under way, if that is possible: when its batch is known but for tokens that lie
  // where it runs. False: nothing happened. The results come in order, one per wait().
  virtual bool start_behind(const StepPlan&) { return false; }
  // The result of the step that was started first. Throws when a rank failed: nothing can run after that.
  virtual StepResult wait() = 0;
};

}  // namespace octet
