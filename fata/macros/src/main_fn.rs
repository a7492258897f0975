//! From `async fn main(env: Env)` to a program.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, Result};

/// What `#[fata::main]` turns `item` into.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(
            arguments,
            "#[fata::main] takes no arguments; settings are boot arguments",
        ));
    }
    let mut function: ItemFn = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), "#[fata::main] belongs on `async fn main(env: fata::Env)`"))?;
    check(&function)?;
    // The crate's own `main` is another function, so this one needs another name.
    let application = Ident::new("fata_application", function.sig.ident.span());
    function.sig.ident = application.clone();
    Ok(quote! {
        #function
        ::fata::__entry!(#application);
    })
}

/// Says what is wrong with a function that cannot be the program.
fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if signature.ident != "main" {
        return Err(Error::new_spanned(
            &signature.ident,
            "#[fata::main] belongs on the function `main`",
        ));
    }
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(
            signature.fn_token,
            "`main` must be async: write `async fn main(env: Env)`",
        ));
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return Err(Error::new_spanned(&signature.generics, "`main` cannot be generic"));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "`main` has no other calling convention"));
    }
    let mut inputs = signature.inputs.iter();
    match (inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(_)), None) => Ok(()),
        (None, _) => Err(Error::new(
            signature.paren_token.span.join(),
            "`main` takes the program's environment: write `async fn main(env: Env)`",
        )),
        (Some(FnArg::Receiver(receiver)), _) => Err(Error::new(receiver.span(), "`main` is not a method")),
        (Some(_), Some(second)) => Err(Error::new_spanned(second, "`main` takes one argument, the `Env`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(item: TokenStream) -> String {
        expand(TokenStream::new(), item)
            .expect_err("should be refused")
            .to_string()
    }

    #[test]
    fn wrong_functions_are_refused_with_what_to_write() {
        assert_eq!(
            error(quote! { fn main(env: Env) {} }),
            "`main` must be async: write `async fn main(env: Env)`"
        );
        assert!(error(quote! { async fn main() {} }).contains("write `async fn main(env: Env)`"));
        assert!(error(quote! { async fn main(env: Env, more: u8) {} }).contains("one argument"));
        assert!(error(quote! { async fn main(&self) {} }).contains("not a method"));
        assert!(error(quote! { async fn main<T>(env: Env) {} }).contains("generic"));
        assert!(error(quote! { async extern "C" fn main(env: Env) {} }).contains("calling convention"));
        assert!(error(quote! { async fn start(env: Env) {} }).contains("the function `main`"));
        assert!(error(quote! { struct Main; }).contains("belongs on"));
        assert!(error(quote! { async fn main(env: Env) }).contains("belongs on"));
    }

    #[test]
    fn arguments_are_refused() {
        let function = quote! { async fn main(env: Env) {} };
        assert!(
            expand(quote! { flavor = "xen" }, function)
                .unwrap_err()
                .to_string()
                .contains("boot arguments")
        );
    }

    #[test]
    fn the_function_is_kept_as_it_is() {
        let function = quote! {
            /// Documented.
            async fn main(env: Env) -> Result<(), Error> { serve(env).await }
        };
        let program = expand(TokenStream::new(), function).unwrap().to_string();
        assert!(program.contains("Documented"));
        assert!(program.contains("serve (env)"));
        assert!(program.contains("__entry ! (fata_application)"));
    }
}
