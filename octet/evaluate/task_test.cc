#include "octet/evaluate/task.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/error.h"
#include "octet/evaluate/number_answer.h"
#include "octet/evaluate/python_random.h"
#include "octet/evaluate/task_score.h"
#include "octet/evaluate/windows.h"

namespace octet {
namespace {

// Expected numbers: CPython 3.11, random.Random(1234) and random.Random(7).
TEST(PythonRandom, DrawsWhatPythonDraws) {
  PythonRandom random(1234);
  EXPECT_EQ(random.sample(10, 3), (std::vector<size_t>{7, 1, 0}));
  EXPECT_EQ(random.sample(1000, 5), (std::vector<size_t>{92, 932, 965, 961, 826}));
  EXPECT_EQ(random.sample(60, 25), (std::vector<size_t>{37, 2,  42, 44, 5,  6, 49, 22, 15, 1, 50, 53, 52,
                                                        41, 39, 30, 45, 29, 9, 55, 11, 7,  0, 32, 31}));
  EXPECT_EQ(random.sample(100000, 7), (std::vector<size_t>{32745, 8462, 87458, 70921, 61066, 8987, 78835}));
  PythonRandom other(7);
  uint64_t last = 0;
  for (int i = 0; i < 2000; ++i) last = other.below(1000003);
  EXPECT_EQ(last, 277614u);
  EXPECT_EQ(other.sample(4, 4).size(), 4u);
}

TaskLines data(std::initializer_list<const char*> lines) {
  TaskLines result{.lines = {}, .where = "data.jsonl"};
  for (const char* line : lines) result.lines.push_back(parse_json(line, "test"));
  return result;
}

TEST(Tasks, ArcAsksForEachChoice) {
  const TaskLines one =
      data({R"({"question": "Why?", "choices": {"text": ["so", "thus"], "label": ["A", "B"]}, "answerKey": "B"})"});
  const TaskQuestion question = make_questions(find_task("arc_easy"), one, one, 1, 0).at(0);
  EXPECT_EQ(question.contexts.at(1), "Question: Why?\nAnswer: thus\n\nQuestion: Why?\nAnswer:");
  EXPECT_EQ(question.continuations, (std::vector<std::string>{" so", " thus"}));
  EXPECT_EQ(question.gold, 1u);
}

TEST(Tasks, HellaSwagCleansItsText) {
  const TaskLines one =
      data({R"({"activity_label": "Roof", "ctx_a": "A man [header] sits.", "ctx_b": "he IS [title] there",
      "endings": [" goes  up [substeps] now.", "stays"], "label": "1"})"});
  const TaskQuestion question = make_questions(find_task("hellaswag"), one, {}, 0, 0).at(0);
  EXPECT_EQ(question.contexts[0], "Roof: A man sits. He is. there");
  EXPECT_EQ(question.choices, (std::vector<std::string>{"goes up now.", "stays"}));
  EXPECT_EQ(question.gold, 1u);
}

TEST(Tasks, WinograndeScoresWhatFollowsTheGap) {
  const TaskLines one =
      data({R"({"sentence": "Ann met Eve and _ smiled. ", "option1": "Ann", "option2": "Eve", "answer": "2"})"});
  const TaskQuestion question = make_questions(find_task("winogrande"), one, {}, 0, 0).at(0);
  EXPECT_EQ(question.contexts, (std::vector<std::string>{"Ann met Eve and Ann", "Ann met Eve and Eve"}));
  EXPECT_EQ(question.continuations, (std::vector<std::string>{" smiled.", " smiled."}));
  EXPECT_EQ(question.gold, 1u);
}

TEST(Tasks, MmluTakesTheFirstExamplesOfTheSubject) {
  const auto line = [](const char* question, const char* subject) {
    return fmt::format(R"({{"question": "{}", "subject": "{}", "choices": ["a", "b", "c", "d"], "answer": 2}})",
                       question, subject);
  };
  TaskLines examples{.lines = {}, .where = "dev.jsonl"};
  for (const auto& text : {line("x", "law"), line("y", "high_school_physics"), line("z", "law")})
    examples.lines.push_back(parse_json(text, "test"));
  TaskLines one{.lines = {parse_json(line(" q ", "law"), "test")}, .where = "data.jsonl"};
  const TaskQuestion question = make_questions(find_task("mmlu"), one, examples, 2, 0).at(0);
  EXPECT_EQ(question.contexts[0],
            "The following are multiple choice questions (with answers) about law.\n\n"
            "x\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nz\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\n"
            "q\nA. a\nB. b\nC. c\nD. d\nAnswer:");
  EXPECT_THROW(make_questions(find_task("mmlu"), one, examples, 3, 0), Error);
}

TEST(Tasks, ErrorsNameLineAndField) {
  const auto text = [](const char* task, const char* line) {
    try {
      make_questions(find_task(task), data({line}), {}, 0, 0);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(text("mmlu", R"({"question": "q", "subject": "s", "choices": ["a"], "answer": 0})"),
            "data.jsonl: line 1: choices: expected four strings, found [\"a\"]");
  EXPECT_NE(text("arc_easy", R"({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "C"})")
                .find("answerKey: expected one of the choices' labels"),
            std::string::npos);
  EXPECT_NE(
      text("winogrande", R"({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"})").find("a gap"),
      std::string::npos);
  EXPECT_NE(
      text("truthfulqa_mc2", R"({"question": "q", "mc2_targets": {"choices": ["a"], "labels": [2]}})").find("labels"),
      std::string::npos);
  EXPECT_THROW(find_task("boolq"), Error);
}

TEST(Tasks, ScoresByHand) {
  TaskQuestion question;
  question.choices = {"long choice", "ok"};
  question.gold = 0;
  // The second is likelier, the first by its 11 characters: -10 / 11 > -4 / 2.
  EXPECT_EQ(choice_scores(find_task("arc_easy"), question, std::vector<double>{-10.0, -4.0}),
            (std::vector<double>{0.0, 1.0}));
  question.is_true = {true, false};
  EXPECT_NEAR(
      choice_scores(find_task("truthfulqa_mc2"), question, std::vector<double>{std::log(0.3), std::log(0.1)})[0], 0.75,
      1e-12);
}

TEST(NumberAnswer, IsFoundAsByThePatterns) {
  EXPECT_EQ(strict_answer("so 3 #### -1,234.5 apples"), "-1,234.5");
  EXPECT_EQ(strict_answer("#### x #### 7."), "7.");
  EXPECT_EQ(strict_answer("the answer is 7"), kNoAnswer);
  EXPECT_EQ(flexible_answer("first 12, then $1,200."), "$1,200.");
  EXPECT_EQ(flexible_answer("it is 7 - no 8"), "8");
  EXPECT_EQ(flexible_answer("none -"), kNoAnswer);
  EXPECT_EQ(flexible_answer("3.."), "3..");
  EXPECT_TRUE(same_answer("1,200.", "He has $5 #### 1200"));
  EXPECT_TRUE(same_answer("$18", "x\ny #### 18"));
  EXPECT_FALSE(same_answer("18", "#### 180"));
}

TEST(Windows, SlideAndScoreEachTokenOnce) {
  std::vector<int32_t> ids(11);
  for (int i = 0; i < 11; ++i) ids[static_cast<size_t>(i)] = i;
  const std::vector<ScoredWindow> windows = slide_windows(ids, 6, 2, 0);
  std::vector<int32_t> scored;
  for (const ScoredWindow& window : windows)
    scored.insert(scored.end(), window.token_ids.begin() + static_cast<int64_t>(window.first_scored),
                  window.token_ids.end());
  EXPECT_EQ(scored, (std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(windows.back().token_ids.front(), 6);  // the last one is shorter
  EXPECT_EQ(slide_windows(ids, 4, 4, 0)[1].first_scored, 1u);
  EXPECT_EQ(slide_windows(ids, 6, 2, 2).size(), 2u);
  EXPECT_THROW(slide_windows(ids, 4, 5, 0), Error);
}

}  // namespace
}  // namespace octet
