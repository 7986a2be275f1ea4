// The folder of images: one folder an image, with disk.raw and image.json, never changed once made.
//
// An image is made in a folder with a hidden name whose `lock` its maker holds, and appears by one
// rename. What a killed maker left behind is swept away by the next command that makes or deletes
// an image. Whoever starts a VM on an image holds the store shared from finding the image until the
// VM's record names it; deleting takes the store exclusively, and so sees every user.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/image_record.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

// 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit.
[[nodiscard]] Result<> check_image_name(std::string_view name);
// "debian-12-genericcloud-amd64.qcow2.xz" -> "debian-12-genericcloud-amd64"; what is no name, even
// so, is for check_image_name() to tell.
[[nodiscard]] std::string image_name_from(std::string_view path);

struct Image {
    ImageRecord record;
    std::string disk;  // path of disk.raw
};

// An image in the making; deletes itself unless it was published.
class NewImage {
  public:
    NewImage(NewImage&& other) noexcept;
    NewImage& operator=(NewImage&&) = delete;
    ~NewImage();

    [[nodiscard]] std::string file(std::string_view entry) const;
    [[nodiscard]] std::string disk() const { return file("disk.raw"); }

  private:
    friend class ImageStore;
    NewImage(std::string folder, Fd lock) : folder_(std::move(folder)), lock_(std::move(lock)) {}
    std::string folder_;
    Fd lock_;
};

class ImageStore {
  public:
    explicit ImageStore(Places places) : places_(std::move(places)) {}

    // Refused when there is an image of that name.
    [[nodiscard]] Result<> check_free(const std::string& name) const;
    [[nodiscard]] Result<NewImage> begin();
    // Writes image.json with `record` (id and created are filled in), deletes all files but the two
    // and puts the image in its place. Refused when there is one of that name by now.
    [[nodiscard]] Result<Image> publish(NewImage image, ImageRecord record);

    [[nodiscard]] bool exists(const std::string& name) const;
    [[nodiscard]] Result<Image> find(const std::string& name) const;
    [[nodiscard]] Result<std::vector<std::string>> names() const;  // sorted

    // VMs, running or not, whose record names the image.
    [[nodiscard]] Result<std::vector<std::string>> users(const std::string& name) const;
    // Refused while a VM uses it; names that VM.
    [[nodiscard]] Result<> remove(const std::string& name);

    // No image is deleted while this is held. Nothing when there is no image at all.
    [[nodiscard]] Result<Fd> hold() const;

  private:
    [[nodiscard]] std::string folder() const { return places_.state + "/images"; }
    [[nodiscard]] std::string folder_of(const std::string& name) const;
    [[nodiscard]] Result<Fd> lock(int operation) const;
    void sweep() const;

    Places places_;
};

}  // namespace masu::cli
