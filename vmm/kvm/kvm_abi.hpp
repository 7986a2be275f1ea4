// <linux/kvm.h> with the layout the kernel means: include this, never the header itself.
#pragma once

#include <linux/stddef.h>

// Up to Linux 6.5 the kernel's macro for trailing arrays puts an empty struct in front of them,
// which has no size in C and one byte in C++: kvm_cpuid2, kvm_msrs and kvm_irq_routing would come
// out four bytes too long, and even the ioctl numbers derived from their sizes would be wrong.
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]  // NOLINT

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <linux/kvm.h>
#pragma GCC diagnostic pop

static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(sizeof(kvm_msrs) == 8);
static_assert(sizeof(kvm_irq_routing) == 8);
static_assert(sizeof(kvm_signal_mask) == 4);
