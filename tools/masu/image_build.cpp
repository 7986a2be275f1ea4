// Finds the recipe, runs it as a child, passes on what it says.
#include "tools/masu/image_build.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/bytes.hpp"
#include "tools/masu/child_program.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/image_import.hpp"

#ifndef MASU_DATA_TO_BIN
#error "the build says where data lie, seen from the folder of programs"
#endif

namespace masu::cli {
namespace {

constexpr const char* recipe = "/recipes/debian-cloud";

// $MASU_IMAGE_RECIPES; else in the build tree, or where they are installed.
Result<std::string> find_recipe() {
    if (const char* chosen = std::getenv("MASU_IMAGE_RECIPES"); chosen != nullptr) {
        if (::access((std::string(chosen) + recipe).c_str(), X_OK) == 0)
            return absolute_path(std::string(chosen) + recipe);
        return fail("MASU_IMAGE_RECIPES is {}, where there is no {}; correct or unset it", chosen,
                    recipe + 1);
    }
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    const auto folder = self.parent_path().string();
    for (const auto* place : {"/../../guest/image", MASU_DATA_TO_BIN "/masu/image"})
        if (const auto path = folder + place + recipe; ::access(path.c_str(), X_OK) == 0)
            return absolute_path(path);
    return fail(
        "the recipe {} was not found in {}{}/masu/image; install Masu, or set MASU_IMAGE_RECIPES",
        recipe + 1, folder, MASU_DATA_TO_BIN);
}

// Whole lines out of pieces; keeps the last one.
class Lines {
  public:
    Lines(Progress& progress, std::string name) : progress_(&progress), name_(std::move(name)) {}

    void add(std::string_view text) {
        rest_ += text;
        for (std::size_t end = 0; (end = rest_.find('\n')) != std::string::npos;) {
            show(rest_.substr(0, end));
            rest_.erase(0, end + 1);
        }
    }
    [[nodiscard]] const std::string& last() const { return last_; }

  private:
    void show(std::string line) {
        if (line.starts_with("image: "))
            line.erase(0, 7);
        progress_->line(name_ + ": " + line);
        last_ = std::move(line);
    }

    Progress* progress_;
    std::string name_;
    std::string rest_;
    std::string last_;
};

}  // namespace

Result<Image> build_image(ImageStore& store, const std::string& name, std::uint64_t size,
                          const Interruptions& interruptions) {
    TRY(store.check_free(name));
    const auto program = TRY(find_recipe());
    auto image = TRY(store.begin());
    Progress progress(name);
    Lines lines(progress, name);
    const auto out = image.file("out");
    const auto work = image.file("work");
    for (const auto& folder : {out, work})
        if (::mkdir(folder.c_str(), 0755) < 0)
            return fail_errno(errno, "cannot make the folder {}", folder);
    const ChildProgram child{.arguments = {program, out, work},
                             .package = "masu",
                             .environment = {{"MASU_IMAGE_SIZE_MIB", std::to_string(size / MiB)}},
                             .own_mounts = ::geteuid() == 0,
                             .output = {},
                             .errors = [&](std::string_view text) { lines.add(text); }};
    if (const auto status = TRY(run_child(child, interruptions)); status != 0)
        return fail("image {} was not built: {}", name,
                    lines.last().empty() ? fmt::format("its recipe ended with status {}", status)
                                         : lines.last());
    if (::rename((out + "/disk.raw").c_str(), image.disk().c_str()) < 0)
        return fail_errno(errno, "the recipe {} made no disk", program);
    ImageRecord record;
    record.name = name;
    record.source = "masu image build";
    record.format = "raw";
    return adopt_disk(store, std::move(image), std::move(record), progress, interruptions);
}

}  // namespace masu::cli
