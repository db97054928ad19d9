//! Loops for the vector registers that the machine has (`pulp`).
//!
//! Neither the order of sums nor their rounding depends on the registers: every operation is one of
//! `f32`, and none is fused with another.

/// Calls a function that is `#[inline(always)]`, compiled for the machine's widest registers:
/// `vectors!(scale(row: &mut [f32], by: f32))`, where `row` and `by` are variables.
///
/// `simd` as the first argument gives the function the registers themselves.
///
/// A closure given to `pulp`'s `dispatch` would not do: where its body is large it is not inlined,
/// and what is not inlined is compiled for the registers that every machine has.
macro_rules! vectors {
    (@output) => { () };
    (@output $output:ty) => { $output };
    (
        @call $function:ident($($given:ident)?) with $simd:ident,
        $($argument:ident: $type:ty),+ => $($output:ty)?
    ) => {{
        struct Call<A>(A);
        impl pulp::WithSimd for Call<($($type,)+)> {
            type Output = $crate::vectors::vectors!(@output $($output)?);

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, $simd: S) -> Self::Output {
                let ($($argument,)+) = self.0;
                $function($($given,)? $($argument),+)
            }
        }
        pulp::Arch::new().dispatch(Call(($($argument,)+)))
    }};
    ($function:ident(simd, $($argument:ident: $type:ty),+) $(-> $output:ty)?) => {
        $crate::vectors::vectors!(
            @call $function(simd) with simd, $($argument: $type),+ => $($output)?
        )
    };
    ($function:ident($($argument:ident: $type:ty),+) $(-> $output:ty)?) => {
        $crate::vectors::vectors!(
            @call $function() with _simd, $($argument: $type),+ => $($output)?
        )
    };
}

pub(crate) use vectors;

#[cfg(test)]
mod tests {
    #[inline(always)]
    fn scaled(row: &mut [f32], by: f32) -> usize {
        row.iter_mut().for_each(|x| *x *= by);
        row.len()
    }

    #[test]
    fn a_call_has_what_the_function_has() {
        let (mut own, by) = ([1.5, 2.5, -3.25], 3.0);
        let row = own.as_mut_slice();
        assert_eq!(vectors!(scaled(row: &mut [f32], by: f32) -> usize), 3);
        assert_eq!(own, [4.5, 7.5, -9.75]);
    }
}
