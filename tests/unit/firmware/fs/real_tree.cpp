#include "tests/unit/firmware/fs/real_tree.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <set>

#include <doctest/doctest.h>

namespace masu::firmware::test {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "masu-fs-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

bool have_tools(const std::vector<std::string>& programs) {
    for (const auto& program : programs) {
        if (try_run("command -v " + program + " >/dev/null"))
            continue;
        std::printf("skipped: no %s here (tools/setup installs it)\n", program.c_str());
        return false;
    }
    return true;
}

namespace {

// The command's output, if it succeeded.
std::optional<std::string> output_of(const std::string& command) {
    const std::string line = "PATH=$PATH:/usr/sbin:/sbin; { " + command + "\n} 2>&1";
    std::FILE* const pipe = ::popen(line.c_str(), "r");
    if (pipe == nullptr)
        return std::nullopt;
    std::string output;
    char buffer[4096];
    while (const auto size = std::fread(buffer, 1, sizeof buffer, pipe))
        output.append(buffer, size);
    const int status = ::pclose(pipe);
    if (status != 0 && !output.empty())
        MESSAGE(command << ": " << output);
    return status == 0 ? std::optional(std::move(output)) : std::nullopt;
}

}  // namespace

bool try_run(const std::string& command) {
    return output_of(command).has_value();
}

std::string run(const std::string& command) {
    INFO(command);
    auto output = output_of(command);
    REQUIRE(output);
    return *std::move(output);
}

namespace {

void write_file(const fs::path& path, std::uint64_t size, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint64_t> words((size + 7) / 8);
    for (auto& word : words)
        word = random();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(words.data()), static_cast<std::streamsize>(size));
    REQUIRE(file.good());
}

void write_sparse(const fs::path& path) {
    const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0);
    for (const off_t at : {off_t{5000}, off_t{1} << 20, off_t{9} << 20})
        REQUIRE(::pwrite(fd, "island", 6, at) == 6);
    REQUIRE(::ftruncate(fd, (off_t{9} << 20) + 12345) == 0);
    ::close(fd);
}

std::vector<std::byte> read_host(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
    std::vector<std::byte> bytes(text.size());
    std::copy_n(reinterpret_cast<const std::byte*>(text.data()), text.size(), bytes.begin());
    return bytes;
}

std::string describe(const Error& error) {
    return std::string(error.reason) + " (" + std::to_string(error.value) + ")";
}

struct Comparison {
    FileSystem& image;
    std::string ignored;
    std::mt19937 random{1};
    Compared result;
    std::vector<std::byte> buffer;

    void contents(const Node& node, const fs::path& host) {
        const std::uint64_t size = fs::file_size(host);
        result.bytes += size;
        ++result.files;
        const auto wanted = read_host(host);
        buffer.assign(wanted.size() + 100, std::byte{0xaa});
        const auto got = image.read(node, 0, buffer);
        REQUIRE_MESSAGE(got.has_value(), describe(got.error()));
        CHECK(*got == wanted.size());
        CHECK(std::equal(wanted.begin(), wanted.end(), buffer.begin()));
        for (int i = 0; i < 3 && !wanted.empty(); ++i) {
            const std::size_t from = random() % wanted.size();
            const std::size_t count = 1 + random() % (i == 0 ? 600 : wanted.size());
            const auto part = image.read(node, from, std::span(buffer).first(count));
            REQUIRE_MESSAGE(part.has_value(), describe(part.error()));
            CHECK(*part == std::min(count, wanted.size() - from));
            CHECK(std::equal(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(*part),
                             wanted.begin() + static_cast<std::ptrdiff_t>(from)));
        }
        const auto beyond = image.read(node, size, buffer);
        CHECK((beyond.has_value() && *beyond == 0));
    }

    void link(const Node& node, const fs::path& host) {
        ++result.links;
        std::array<char, 4096> target;
        const auto size = image.read_link(node, target);
        REQUIRE_MESSAGE(size.has_value(), describe(size.error()));
        CHECK(std::string(target.data(), *size) == fs::read_symlink(host).string());
    }

    void directory(const Node& node, const fs::path& host, const std::string& path) {
        ++result.directories;
        std::set<std::string> left;
        for (const auto& one : fs::directory_iterator(host))
            left.insert(one.path().filename().string());
        DirectoryEntry entry;
        for (std::uint64_t cursor = 0;;) {
            const auto more = image.next(node, cursor, entry);
            REQUIRE_MESSAGE(more.has_value(), path << ": " << describe(more.error()));
            if (!*more)
                break;
            const std::string name(entry.name());
            if (path.empty() && name == ignored)
                continue;
            CHECK_MESSAGE(left.erase(name) == 1, path << "/" << name);
            // By its path, too: not always, for huge directories are read from their start.
            if (left.size() % 16 == 0) {
                const auto opened = image.open_no_follow(path + "/" + name);
                REQUIRE_MESSAGE(opened.has_value(), path << "/" << name);
                CHECK(opened->id == entry.node.id);
            }
            member(entry.node, host / name, path + "/" + name, entry.type);
        }
        CHECK_MESSAGE(left.empty(), path << " lacks " << *left.begin());
    }

    void member(const Node& node, const fs::path& host, const std::string& path, FileType type) {
        INFO(path);
        const auto info = image.stat(node);
        REQUIRE_MESSAGE(info.has_value(), describe(info.error()));
        CHECK((type == FileType::Other || type == info->type));
        const auto status = fs::symlink_status(host);
        CHECK((info->type == FileType::Directory) == fs::is_directory(status));
        CHECK((info->type == FileType::SymbolicLink) == fs::is_symlink(status));
        CHECK((info->type == FileType::Regular) == fs::is_regular_file(status));
        if (fs::is_directory(status)) {
            directory(node, host, path);
        } else if (fs::is_symlink(status)) {
            link(node, host);
        } else if (fs::is_regular_file(status)) {
            CHECK(info->size == fs::file_size(host));
            contents(node, host);
        }
    }
};

}  // namespace

void make_tree(const fs::path& folder, const TreeShape& shape) {
    std::mt19937 random(7);
    for (int i = 0; i < shape.files; ++i) {
        fs::path at =
            folder / ("group " + std::to_string(i % 7)) / ("part-" + std::to_string(i % 3));
        fs::create_directories(at);
        std::string name = "file-" + std::to_string(i) + ".bin";
        if (i % 50 == 0)
            name = std::string(200, 'n') + std::to_string(i);
        if (i % 41 == 0)
            name = "größe und ☂ " + std::to_string(i);
        write_file(at / name, random() % (i % 10 == 0 ? 70000 : 6000), static_cast<unsigned>(i));
    }
    fs::create_directories(folder / "huge");
    for (int i = 0; i < shape.huge_directory; ++i)
        write_file(folder / "huge" / ("a name of middling length " + std::to_string(i)),
                   static_cast<std::uint64_t>(i % 3), static_cast<unsigned>(i));
    fs::path deep = folder;
    for (int i = 0; i < shape.deep; ++i)
        deep /= "d" + std::to_string(i);
    fs::create_directories(deep);
    write_file(deep / "bottom", 1234, 5);
    fs::create_directories(folder / "empty");
    write_file(folder / "nothing", 0, 1);
    write_file(folder / "large", shape.large_file, 99);
    if (shape.sparse)
        write_sparse(folder / "sparse");
    if (shape.links) {
        fs::create_symlink("large", folder / "short link");
        fs::create_symlink("../nothing", folder / "empty" / "up");
        fs::create_symlink("/" + std::string(300, 'x'), folder / "long link");
        fs::create_symlink(std::string(59, 'y'), folder / "link59");
        fs::create_symlink(std::string(60, 'y'), folder / "link60");
    }
}

Compared compare_tree(FileSystem& image, const fs::path& folder, const std::string& ignored) {
    Comparison comparison{.image = image, .ignored = ignored};
    comparison.directory(image.root(), folder, "");
    return comparison.result;
}

}  // namespace masu::firmware::test
