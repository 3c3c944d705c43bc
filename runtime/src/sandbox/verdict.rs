use crate::batch::Batch; use crate::route::Pieces; use crate::rule::Rule; use crate::pipeline::Stop;
pub fn transform(i: &mut Option<Box<dyn Rule>>, fresh: &mut dyn FnMut()->Result<Box<dyn Rule>,Stop>, b:&Batch)->Result<Pieces,Stop>{ if i.is_none(){*i=Some(fresh()?);} let o=i.as_mut().unwrap().process(b).map_err(|e|Stop::new(e.to_string()))?; Ok(Pieces{outputs:vec![(0,o)],failed:vec![]}) }
