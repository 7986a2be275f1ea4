// Protocols and handles: install, locate, open, close, notify, device paths, drivers.
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

constexpr efi::Guid first{0x4d415355, 1, 1, {1, 2, 3, 4, 5, 6, 7, 8}};
constexpr efi::Guid second{0x4d415355, 1, 2, {1, 2, 3, 4, 5, 6, 7, 8}};
int one;
int two;

void test_install() {
    efi::Handle handle = nullptr;
    const auto native = efi::InterfaceType::Native;
    CHECK(bs->install_protocol_interface(nullptr, &first, native, &one) ==
          Status::InvalidParameter);
    CHECK(bs->install_protocol_interface(&handle, nullptr, native, &one) ==
          Status::InvalidParameter);
    CHECK(bs->install_protocol_interface(&handle, &first, native, &one) == Status::Success);
    CHECK(handle != nullptr);
    CHECK(bs->install_protocol_interface(&handle, &first, native, &two) ==
          Status::InvalidParameter);
    void* got = nullptr;
    CHECK(bs->handle_protocol(handle, &first, &got) == Status::Success && got == &one);
    CHECK(bs->handle_protocol(handle, &second, &got) == Status::Unsupported && got == nullptr);
    CHECK(bs->handle_protocol(&one, &first, &got) == Status::InvalidParameter);
    CHECK(bs->handle_protocol(handle, &first, nullptr) == Status::InvalidParameter);
    CHECK(bs->reinstall_protocol_interface(handle, &first, &two, &one) == Status::NotFound);
    CHECK(bs->reinstall_protocol_interface(handle, &first, &one, &two) == Status::Success);
    CHECK(bs->locate_protocol(&first, nullptr, &got) == Status::Success && got == &two);
    CHECK(bs->uninstall_protocol_interface(handle, &first, &one) == Status::NotFound);
    CHECK(bs->uninstall_protocol_interface(handle, &first, &two) == Status::Success);
    CHECK(bs->handle_protocol(handle, &first, &got) == Status::InvalidParameter);
    CHECK(bs->locate_protocol(&first, nullptr, &got) == Status::NotFound && got == nullptr);
}

void test_multiple() {
    efi::Handle handle = nullptr;
    void* got = nullptr;
    CHECK(bs->install_multiple_protocol_interfaces(&handle, &first, &one, &second, &two, nullptr) ==
          Status::Success);
    // The second of these is there already: nothing of it remains.
    efi::Handle other = nullptr;
    CHECK(bs->install_multiple_protocol_interfaces(&other, &first, &one, &first, &two, nullptr) ==
          Status::InvalidParameter);
    CHECK(other == nullptr);
    efi::Guid** protocols = nullptr;
    std::uint64_t count = 0;
    CHECK(bs->protocols_per_handle(handle, &protocols, &count) == Status::Success && count == 2);
    CHECK(*protocols[0] == first && *protocols[1] == second);
    CHECK(bs->free_pool(protocols) == Status::Success);
    CHECK(bs->uninstall_multiple_protocol_interfaces(handle, &first, &one, &second, &one,
                                                     nullptr) == Status::InvalidParameter);
    CHECK(bs->handle_protocol(handle, &first, &got) == Status::Success && got == &one);
    CHECK(bs->uninstall_multiple_protocol_interfaces(handle, &first, &one, &second, &two,
                                                     nullptr) == Status::Success);
}

void test_locate() {
    efi::Handle a = nullptr;
    efi::Handle b = nullptr;
    const auto native = efi::InterfaceType::Native;
    const auto by_protocol = efi::LocateSearch::ByProtocol;
    void* registration = nullptr;
    efi::Event event = nullptr;
    CHECK(bs->create_event(0, 0, nullptr, nullptr, &event) == Status::Success);
    CHECK(bs->register_protocol_notify(&first, event, &registration) == Status::Success);
    CHECK(bs->install_protocol_interface(&a, &first, native, &one) == Status::Success);
    CHECK(bs->install_protocol_interface(&b, &first, native, &two) == Status::Success);
    CHECK(bs->check_event(event) == Status::Success);
    efi::Handle list[4] = {};
    std::uint64_t size = sizeof(efi::Handle);
    CHECK(bs->locate_handle(by_protocol, &first, nullptr, &size, list) == Status::BufferTooSmall);
    CHECK(size == 2 * sizeof(efi::Handle));
    CHECK(bs->locate_handle(by_protocol, &first, nullptr, &size, list) == Status::Success);
    CHECK(list[0] == a && list[1] == b);
    CHECK(bs->locate_handle(by_protocol, &second, nullptr, &size, list) == Status::NotFound);
    CHECK(bs->locate_handle(by_protocol, nullptr, nullptr, &size, list) ==
          Status::InvalidParameter);
    size = sizeof list;
    CHECK(bs->locate_handle(efi::LocateSearch::ByRegisterNotify, nullptr, registration, &size,
                            list) == Status::Success);
    CHECK(size == sizeof(efi::Handle) && list[0] == a);
    efi::Handle* buffer = nullptr;
    std::uint64_t count = 0;
    CHECK(bs->locate_handle_buffer(by_protocol, &first, nullptr, &count, &buffer) ==
          Status::Success);
    CHECK(count == 2 && buffer[1] == b);
    CHECK(bs->free_pool(buffer) == Status::Success);
    CHECK(bs->locate_handle_buffer(efi::LocateSearch::AllHandles, nullptr, nullptr, &count,
                                   &buffer) == Status::Success);
    CHECK(count > 4 && bs->free_pool(buffer) == Status::Success);
    CHECK(bs->uninstall_protocol_interface(a, &first, &one) == Status::Success);
    CHECK(bs->uninstall_protocol_interface(b, &first, &two) == Status::Success);
    CHECK(bs->close_event(event) == Status::Success);
}

void test_open() {
    efi::Handle handle = nullptr;
    void* got = nullptr;
    CHECK(bs->install_protocol_interface(&handle, &first, efi::InterfaceType::Native, &one) ==
          Status::Success);
    const auto open = [&](efi::Handle agent, efi::Handle controller, std::uint32_t attributes) {
        return bs->open_protocol(handle, &first, &got, agent, controller, attributes);
    };
    CHECK(open(self, nullptr, 0) == Status::InvalidParameter);
    CHECK(open(self, nullptr, efi::open_get_protocol) == Status::Success && got == &one);
    CHECK(bs->open_protocol(handle, &first, nullptr, self, nullptr, efi::open_test_protocol) ==
          Status::Success);
    CHECK(bs->open_protocol(handle, &second, &got, self, nullptr, efi::open_get_protocol) ==
          Status::Unsupported);
    CHECK(open(nullptr, nullptr, efi::open_exclusive) == Status::InvalidParameter);
    CHECK(open(self, handle, efi::open_by_child_controller) == Status::InvalidParameter);
    CHECK(open(self, self, efi::open_by_driver) == Status::Success);
    CHECK(open(self, self, efi::open_by_driver) == Status::AlreadyStarted);
    CHECK(open(handle, self, efi::open_by_driver) == Status::AccessDenied);
    // The "driver" has no binding to stop: nobody can be exclusive, nor take the protocol away.
    CHECK(open(self, nullptr, efi::open_exclusive) == Status::AccessDenied);
    CHECK(bs->uninstall_protocol_interface(handle, &first, &one) == Status::AccessDenied);
    efi::OpenProtocolInformation* list = nullptr;
    std::uint64_t count = 0;
    CHECK(bs->open_protocol_information(handle, &first, &list, &count) == Status::Success);
    CHECK(count == 2 && bs->free_pool(list) == Status::Success);
    CHECK(bs->open_protocol_information(handle, &second, &list, &count) == Status::NotFound);
    CHECK(bs->close_protocol(handle, &first, self, self) == Status::Success);
    CHECK(bs->close_protocol(handle, &first, self, self) == Status::NotFound);
    CHECK(open(self, nullptr, efi::open_exclusive) == Status::Success);
    CHECK(open(handle, self, efi::open_by_driver) == Status::AccessDenied);
    CHECK(bs->close_protocol(handle, &first, self, nullptr) == Status::Success);
    CHECK(bs->uninstall_protocol_interface(handle, &first, &one) == Status::Success);
}

efi::Handle started_on;
Status EFIAPI supported(efi::DriverBinding*, efi::Handle controller, efi::DevicePath*) {
    void* unused = nullptr;
    return bs->handle_protocol(controller, &second, &unused);
}
Status EFIAPI start(efi::DriverBinding*, efi::Handle controller, efi::DevicePath*) {
    started_on = controller;
    return Status::Success;
}
Status EFIAPI stop(efi::DriverBinding*, efi::Handle, std::uint64_t, efi::Handle*) {
    return Status::Success;
}

void test_drivers() {
    efi::DriverBinding binding{supported, start, stop, 1, self, nullptr};
    efi::Handle driver = nullptr;
    efi::Handle controller = nullptr;
    CHECK(bs->connect_controller(&one, nullptr, nullptr, 0) == Status::InvalidParameter);
    CHECK(bs->install_multiple_protocol_interfaces(&controller, &second, &two, nullptr) ==
          Status::Success);
    CHECK(bs->connect_controller(controller, nullptr, nullptr, 1) == Status::NotFound);
    CHECK(bs->install_multiple_protocol_interfaces(&driver, &efi::guid::driver_binding, &binding,
                                                   nullptr) == Status::Success);
    CHECK(bs->connect_controller(controller, nullptr, nullptr, 1) == Status::Success);
    CHECK(started_on == controller);
    CHECK(bs->disconnect_controller(controller, nullptr, nullptr) == Status::Success);
    CHECK(bs->disconnect_controller(&one, nullptr, nullptr) == Status::InvalidParameter);
    CHECK(bs->uninstall_multiple_protocol_interfaces(driver, &efi::guid::driver_binding, &binding,
                                                     nullptr) == Status::Success);
    CHECK(bs->uninstall_multiple_protocol_interfaces(controller, &second, &two, nullptr) ==
          Status::Success);
}

void test_paths() {
    efi::LoadedImage* loaded = nullptr;
    efi::DevicePath* path = nullptr;
    CHECK(bs->handle_protocol(self, &efi::guid::loaded_image, reinterpret_cast<void**>(&loaded)) ==
          Status::Success);
    CHECK(bs->handle_protocol(self, &efi::guid::loaded_image_device_path,
                              reinterpret_cast<void**>(&path)) == Status::Success);
    auto* rest = path;
    efi::Handle device = nullptr;
    CHECK(bs->locate_device_path(&efi::guid::simple_file_system, &rest, &device) ==
          Status::Success);
    CHECK(device == loaded->device && rest->type == 4 && rest->subtype == 4);
    CHECK(bs->locate_device_path(&first, &rest, &device) == Status::NotFound);
    CHECK(bs->locate_device_path(&first, nullptr, &device) == Status::InvalidParameter);
    efi::DevicePathToText* to_text = nullptr;
    CHECK(bs->locate_protocol(&efi::guid::device_path_to_text, nullptr,
                              reinterpret_cast<void**>(&to_text)) == Status::Success);
    auto* text = to_text->device_path_to_text(path, 0, 0);
    CHECK(text != nullptr && text[0] == u'P' && text[7] == u'(');
    print(u"PATH ");
    print(text);
    print(u"\r\n");
    CHECK(bs->free_pool(text) == Status::Success);
    CHECK(to_text->device_path_to_text(nullptr, 0, 0) == nullptr);
}

}  // namespace

void test_handles() {
    test_install();
    test_multiple();
    test_locate();
    test_open();
    test_drivers();
    test_paths();
}

}  // namespace efi_test
