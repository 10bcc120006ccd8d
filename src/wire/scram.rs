//! placeholder
use pgwire::api::auth::sasl::scram::ScramServerAuth;
#[derive(Clone)]
pub struct ChannelBinding(ScramServerAuth);
impl ChannelBinding {
    pub fn of_certificate(_der: &[u8]) -> Option<Self> { None }
}
